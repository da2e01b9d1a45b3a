"""A witness: keeps one cosigned checkpoint for each log it knows, and never goes back. https://c2sp.org/tlog-witness"""
