package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A verifier holds what its stages have established of a log, in this order.
type verifier struct {
	url    string
	client *http.Client
	key    note.Verifier
	head   tlog.Tree            // checkpoint: what the log signed
	served map[tlog.Tile][]byte // tiles: each as served, authenticated
	leaves []tlog.Hash          // entries: the hash of each
	hashes hashList             // tree: computed from the leaves
}

func newVerifier(url string, key note.Verifier) *verifier {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return &verifier{url: strings.TrimSuffix(url, "/"), client: client, key: key, served: make(map[tlog.Tile][]byte)}
}

func (v *verifier) get(path string) ([]byte, error) {
	resp, err := v.client.Get(v.url + "/" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// Height, ReadTiles and SaveTiles make a verifier a tlog.TileReader. Tlog saves
// tiles once it has authenticated them, their length included.

func (v *verifier) Height() int { return tileHeight }

func (v *verifier) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, ok := v.served[t]
		if !ok {
			var err error
			if data, err = v.get(tilePath(t)); err != nil {
				return nil, err
			}
		}
		all[i] = data
	}
	return all, nil
}

func (v *verifier) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, t := range tiles {
		v.served[t] = data[i]
	}
}

func (v *verifier) checkpoint() {
	msg, err := v.get("checkpoint")
	check("checkpoint", err)
	v.head, err = openCheckpoint(msg, v.key)
	check("checkpoint", err)
	fmt.Printf("checkpoint: size %d signed by %s+%08x\n", v.head.N, v.key.Name(), v.key.KeyHash())
}

// tiles authenticates the tiles on the right edge, which together make the root,
// and then all from the top down, so that of these the one at fault is named.
func (v *verifier) tiles() {
	reader := tlog.TileHashReader(v.head, v)
	all := tlog.NewTiles(tileHeight, 0, v.head.N)
	slices.Reverse(all)
	resource := "checkpoint"
	for _, t := range all {
		if t.W < tileWidth {
			resource += " or " + tilePath(t)
		}
	}
	_, err := tlog.TreeHash(v.head.N, reader)
	check(resource, err)
	for _, t := range all {
		_, err := tlog.ReadTileData(t, reader)
		check(tilePath(t), err)
	}
	fmt.Printf("tiles: %d authenticated\n", len(all))
}

func (v *verifier) entries() {
	for _, t := range tlog.NewTiles(tileHeight, 0, v.head.N) {
		if t.L > 0 {
			continue
		}
		bundle := t
		bundle.L = -1
		data, err := v.get(tilePath(bundle))
		check(tilePath(bundle), err)
		entries, err := splitBundle(data, t.W)
		check(tilePath(bundle), err)
		for i, entry := range entries {
			leaf := tlog.RecordHash(entry)
			logged := tlog.Hash(v.served[t][i*tlog.HashSize:][:tlog.HashSize])
			check(fmt.Sprintf("entry %d in %s", len(v.leaves), tilePath(bundle)), same("leaf hash", leaf, logged))
			v.leaves = append(v.leaves, leaf)
		}
	}
	fmt.Printf("entries: %d hashed\n", len(v.leaves))
}

// tree computes the whole tree from the leaves and compares every served byte with it.
func (v *verifier) tree() {
	for i, leaf := range v.leaves {
		stored, err := tlog.StoredHashesForRecordHash(int64(i), leaf, v.hashes)
		check("tree", err)
		v.hashes = append(v.hashes, stored...)
	}
	check("checkpoint", same("root", v.head.Hash, v.root(v.head.N)))
	for t, served := range v.served {
		computed, err := tlog.ReadTileData(t, v.hashes)
		check(tilePath(t), err)
		if !bytes.Equal(served, computed) {
			check(tilePath(t), errors.New("not the hashes of its entries"))
		}
	}
	fmt.Println("tree: the entries make these tiles and this root")
}

// root is the root of the log's tree when it had size entries.
func (v *verifier) root(size int64) tlog.Hash {
	root, err := tlog.TreeHash(size, v.hashes)
	check("tree", err)
	return root
}

// proofs makes proofs out of the served tiles, as a client does, and checks them.
func (v *verifier) proofs() {
	reader := tlog.TileHashReader(v.head, v)
	indexes := sample(v.head.N, 2000)
	for _, i := range indexes {
		record, err := tlog.ProveRecord(v.head.N, i, reader)
		check("tiles", err)
		err = tlog.CheckRecord(record, v.head.N, v.head.Hash, i, v.leaves[i])
		check(fmt.Sprintf("proof of entry %d", i), err)
		prefix, err := tlog.ProveTree(v.head.N, i+1, reader)
		check("tiles", err)
		err = tlog.CheckTree(prefix, v.head.N, v.head.Hash, i+1, v.root(i+1))
		check(fmt.Sprintf("proof from size %d", i+1), err)
	}
	fmt.Printf("proofs: %d entries and %d earlier sizes\n", len(indexes), len(indexes))
}

func (v *verifier) old(file string) {
	msg, err := os.ReadFile(file)
	check("old checkpoint", err)
	old := v.prefix(file, msg)
	if old.N > 0 { // every tree extends the empty one
		proof, err := tlog.ProveTree(v.head.N, old.N, tlog.TileHashReader(v.head, v))
		check(file, err)
		check(file, tlog.CheckTree(proof, v.head.N, v.head.Hash, old.N, old.Hash))
	}
	fmt.Printf("old: size %d is a prefix\n", old.N)
}

// prefix opens another checkpoint, of what must be the same tree or a prefix of it.
func (v *verifier) prefix(file string, msg []byte) tlog.Tree {
	tree, err := openCheckpoint(msg, v.key)
	check(file, err)
	if tree.N > v.head.N {
		check(file, fmt.Errorf("size %d is above %d, that of the log's checkpoint", tree.N, v.head.N))
	}
	check(file, same("root", tree.Hash, v.root(tree.N)))
	return tree
}

// answers asks the log for proofs between sampled sizes.
func (v *verifier) answers() {
	count := 0
	for _, i := range sample(v.head.N, 16) {
		for _, size := range []int64{i + 1, (i + 1 + v.head.N) / 2, v.head.N} {
			v.inclusionAnswer(i, size)
			v.consistencyAnswer(i+1, size)
			count++
		}
	}
	fmt.Printf("answers: %d inclusion and %d consistency proofs\n", count, count)
}

func (v *verifier) inclusionAnswer(index, size int64) {
	path := fmt.Sprintf("v1/proofs/inclusion?index=%d&size=%d", index, size)
	var answer struct {
		Index, Size int64
		Root        tlog.Hash
		LeafHash    tlog.Hash `json:"leaf_hash"`
		Proof       tlog.RecordProof
	}
	v.getJSON(path, &answer)
	if answer.Index != index || answer.Size != size || answer.Proof == nil {
		check(path, fmt.Errorf("answers %+v", answer))
	}
	check(path, same("root", answer.Root, v.root(size)))
	check(path, same("leaf hash", answer.LeafHash, v.leaves[index]))
	check(path, tlog.CheckRecord(answer.Proof, size, answer.Root, index, answer.LeafHash))
}

func (v *verifier) consistencyAnswer(older, newer int64) {
	path := fmt.Sprintf("v1/proofs/consistency?old=%d&new=%d", older, newer)
	var answer struct {
		Old, New int64
		Proof    tlog.TreeProof
	}
	v.getJSON(path, &answer)
	if answer.Old != older || answer.New != newer || answer.Proof == nil {
		check(path, fmt.Errorf("answers %+v", answer))
	}
	check(path, tlog.CheckTree(answer.Proof, newer, v.root(newer), older, v.root(older)))
}

func (v *verifier) getJSON(path string, answer any) {
	body, err := v.get(path)
	check(path, err)
	check(path, json.Unmarshal(body, answer))
}

// receipt checks a tlog-proof by itself, and that its checkpoint is of this log.
func (v *verifier) receipt(file, entryFile string) {
	data, err := os.ReadFile(file)
	check("receipt", err)
	entry, err := os.ReadFile(entryFile)
	check("entry", err)
	f, err := parseProofFile(data)
	check(file, err)
	tree := v.prefix(file, f.checkpoint)
	err = tlog.CheckRecord(f.proof, tree.N, tree.Hash, f.index, tlog.RecordHash(entry))
	check(fmt.Sprintf("%s for %s", file, entryFile), err)
	fmt.Printf("receipt: entry %d in the tree of size %d\n", f.index, tree.N)
}

func same(what string, got, want tlog.Hash) error {
	if got != want {
		return fmt.Errorf("%s %s, should be %s", what, got, want)
	}
	return nil
}

// hashList is a tlog.HashReader of a tree in memory.
type hashList []tlog.Hash

func (l hashList) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(l)) {
			return nil, fmt.Errorf("no hash %d in the tree", x)
		}
		hashes[i] = l[x]
	}
	return hashes, nil
}

// sample picks numbers below n: every one if there are at most all, else the
// first and last, those around powers of two, and a few random but fixed ones.
func sample(n, all int64) []int64 {
	var picked []int64
	for i := range n {
		if n <= all || i == n-1 || i&(i-1) == 0 || i&(i+1) == 0 {
			picked = append(picked, i)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 16 {
		if n > all {
			picked = append(picked, random.Int64N(n))
		}
	}
	return picked
}
