-- For wrk: sends one body over and over, or GETs the paths of a file in turn; prints one line of figures at the end.
--   wrk ... -- post CONTENT-TYPE BODY-FILE
--   wrk ... -- paths FILE
local prepared, position = {}, 0

function init(args)
   if args[1] == "post" then
      wrk.method = "POST"
      wrk.headers["Content-Type"] = args[2]
      wrk.body = assert(io.open(args[3], "rb")):read("*a")
      prepared[1] = wrk.format()
   else
      for path in io.lines(args[2]) do
         prepared[#prepared + 1] = wrk.format("GET", path)
      end
   end
end

function request()
   position = position % #prepared + 1
   return prepared[position]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format("FIGURES %d %d %d %d %d\n", summary.requests, summary.duration, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(99)))
end
