package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tilePath is t's path in tlog-tiles, which has no height in it and says
// "entries" for the "data" of tlog (level -1).
func tilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), "tile/8/")
	if bundle, ok := strings.CutPrefix(path, "data/"); ok {
		path = "entries/" + bundle
	}
	return "tile/" + path
}

// splitBundle is the entries of a bundle: n of them, each after its length in 16 bits.
func splitBundle(data []byte, n int) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("ends inside entry %d", len(entries))
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	if len(entries) != n {
		return nil, fmt.Errorf("%d entries, not %d", len(entries), n)
	}
	return entries, nil
}

// openCheckpoint is the tree head in a note signed by key, whose name is the log's origin.
func openCheckpoint(msg []byte, key note.Verifier) (tlog.Tree, error) {
	n, err := note.Open(msg, note.VerifierList(key))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 { // extension lines are allowed, but ours has none
		return tlog.Tree{}, errors.New("not origin, size and root")
	}
	if lines[0] != key.Name() {
		return tlog.Tree{}, fmt.Errorf("origin %q is not the name of the key", lines[0])
	}
	size, err1 := parseSize(lines[1])
	root, err2 := parseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, errors.Join(err1, err2)
}

// A proofFile is a tlog-proof; its extra line, if any, is not kept.
type proofFile struct {
	index      int64
	proof      tlog.RecordProof
	checkpoint []byte
}

func parseProofFile(data []byte) (f proofFile, err error) {
	head, msg, _ := strings.Cut(string(data), "\n\n")
	header, head, _ := strings.Cut(head, "\n")
	if strings.HasPrefix(head, "extra ") {
		_, head, _ = strings.Cut(head, "\n")
	}
	lines := strings.Split(head, "\n")
	index, ok := strings.CutPrefix(lines[0], "index ")
	if header != "c2sp.org/tlog-proof@v1" || !ok {
		return f, errors.New("not a tlog-proof")
	}
	if f.index, err = parseSize(index); err != nil {
		return f, err
	}
	for _, line := range lines[1:] {
		hash, err := parseHash(line)
		if err != nil {
			return f, err
		}
		f.proof = append(f.proof, hash)
	}
	f.checkpoint = []byte(msg)
	return f, nil
}

// parseSize accepts the one canonical spelling of a size or index.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("not a size or index: %q", s)
	}
	return n, nil
}

// parseHash accepts the one canonical spelling of a hash.
func parseHash(s string) (tlog.Hash, error) {
	hash, err := tlog.ParseHash(s)
	if err != nil || hash.String() != s {
		return tlog.Hash{}, fmt.Errorf("not a hash: %q", s)
	}
	return hash, nil
}
