// Follow reads a growing tlog-tiles log (https://c2sp.org/tlog-tiles) with the
// client package of Tessera, https://github.com/transparency-dev/tessera. That
// package fetches, tracks checkpoints, builds the proofs and parses the bundles;
// follow says what to fetch, and that everything fetched must fit together.
//
// Usage:
//
//	follow -url URL -vkey VKEY [-old NOTE]
//
// URL is the log's prefix. VKEY is the log's Ed25519 key; signatures by other
// keys are ignored. NOTE is a checkpoint to start from, not to be asked for.
//
// For each line on standard input it looks at the log once: the tracker proves
// that the new checkpoint extends the last; all new entries are read, and they
// must make the leaf hashes in the tiles and the root; entries and all sizes seen
// before are proven from tiles. It answers with a line "size N root HASH from M",
// where M is the size at the last look. At the first thing that does not hold it
// says so and exits with status 1; at the end of its input with status 0.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

var hasher = rfc6962.DefaultHasher

func main() {
	log.SetFlags(0)
	log.SetPrefix("follow: ")
	prefix := flag.String("url", "", "`prefix` of the log")
	vkey := flag.String("vkey", "", "Ed25519 verifier `key` of the log")
	old := flag.String("old", "", "`file` with the checkpoint to start from")
	flag.Parse()
	if *prefix == "" || *vkey == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx := context.Background()
	f, err := newFollower(ctx, *prefix, *vkey, *old)
	check("first checkpoint", err)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		from := f.size()
		check("look", f.look(ctx))
		fmt.Printf("size %d root %s from %d\n", f.size(), base64.StdEncoding.EncodeToString(f.root()), from)
	}
	check("standard input", lines.Err())
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

// A follower holds the tracker's state, and what the entries read so far make.
type follower struct {
	fetcher *client.HTTPFetcher
	tracker *client.LogStateTracker
	tree    *compact.Range    // made from the entries read
	leaves  [][]byte          // their hashes
	seen    map[uint64][]byte // the root of every size looked at
	latest  uint64
}

func newFollower(ctx context.Context, prefix, vkey, oldFile string) (*follower, error) {
	address, err := url.Parse(prefix)
	if err != nil {
		return nil, err
	}
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	fetcher, err := client.NewHTTPFetcher(address, &http.Client{Timeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	var old []byte
	if oldFile != "" {
		if old, err = os.ReadFile(oldFile); err != nil {
			return nil, err
		}
	}
	consensus := client.UnilateralConsensus(fetcher.ReadCheckpoint)
	tracker, err := client.NewLogStateTracker(ctx, fetcher.ReadTile, old, key, key.Name(), consensus)
	if err != nil {
		return nil, err
	}
	ranges := &compact.RangeFactory{Hash: hasher.HashChildren}
	return &follower{fetcher: fetcher, tracker: tracker, tree: ranges.NewEmptyRange(0), seen: make(map[uint64][]byte)}, nil
}

func (f *follower) size() uint64 { return f.latest }

func (f *follower) root() []byte { return f.seen[f.latest] }

func (f *follower) look(ctx context.Context) error {
	if _, _, _, err := f.tracker.Update(ctx); err != nil {
		return err
	}
	head := f.tracker.Latest()
	if head.Size < f.latest {
		return fmt.Errorf("size %d after %d", head.Size, f.latest)
	}
	if err := f.read(ctx, head.Size); err != nil {
		return err
	}
	root, err := f.tree.GetRootHash(nil)
	if head.Size == 0 {
		root = hasher.EmptyRoot()
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(root, head.Hash) {
		return fmt.Errorf("the entries make the root %x, the checkpoint of size %d says %x", root, head.Size, head.Hash)
	}
	if err := f.prove(ctx, head.Size, head.Hash); err != nil {
		return err
	}
	f.latest, f.seen[head.Size] = head.Size, head.Hash
	return nil
}

// read reads the entries from those it has up to size, as a stream and bundle by bundle, and the leaf hashes in the tiles.
func (f *follower) read(ctx context.Context, size uint64) error {
	first := uint64(len(f.leaves))
	sizeFunc := func(context.Context) (uint64, error) { return size, nil }
	for bundle, err := range client.EntryBundles(ctx, 2, sizeFunc, f.fetcher.ReadEntryBundle, first, size-first) {
		if err != nil {
			return err
		}
		where := layout.EntriesPath(bundle.RangeInfo.Index, bundle.RangeInfo.Partial)
		streamed := api.EntryBundle{}
		if err := streamed.UnmarshalText(bundle.Data); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		fetched, err := client.GetEntryBundle(ctx, f.fetcher.ReadEntryBundle, bundle.RangeInfo.Index, size)
		if err != nil {
			return err
		}
		width := uint64(bundle.RangeInfo.Partial)
		if width == 0 {
			width = layout.EntryBundleWidth
		}
		if uint64(len(streamed.Entries)) != width || uint64(len(fetched.Entries)) != width {
			return fmt.Errorf("%s: %d entries and then %d, not %d", where, len(streamed.Entries), len(fetched.Entries), width)
		}
		for i := bundle.RangeInfo.First; i < bundle.RangeInfo.First+bundle.RangeInfo.N; i++ {
			if !bytes.Equal(streamed.Entries[i], fetched.Entries[i]) {
				return fmt.Errorf("%s: two different entries %d", where, i)
			}
			leaf := hasher.HashLeaf(streamed.Entries[i])
			if err := f.tree.Append(leaf, nil); err != nil {
				return err
			}
			f.leaves = append(f.leaves, leaf)
		}
	}
	if uint64(len(f.leaves)) != size {
		return fmt.Errorf("%d entries in a log of size %d", len(f.leaves), size)
	}
	if size == first {
		return nil
	}
	hashes, err := client.FetchLeafHashes(ctx, f.fetcher.ReadTile, first, size-first, size)
	if err != nil {
		return err
	}
	for i, hash := range hashes {
		if index := first + uint64(i); !bytes.Equal(hash, f.leaves[index]) {
			return fmt.Errorf("entry %d in %s is not the one in the tile", index, layout.EntriesPathForLogIndex(index, size))
		}
	}
	return nil
}

// prove proves sampled entries, and every size looked at, in the tree of size.
func (f *follower) prove(ctx context.Context, size uint64, root []byte) error {
	builder, err := client.NewProofBuilder(ctx, size, f.fetcher.ReadTile)
	if err != nil {
		return err
	}
	for _, index := range sample(size) {
		hashes, err := builder.InclusionProof(ctx, index)
		if err == nil {
			err = proof.VerifyInclusion(hasher, index, size, f.leaves[index], hashes, root)
		}
		if err != nil {
			return fmt.Errorf("proof of entry %d in size %d: %w", index, size, err)
		}
	}
	for old, oldRoot := range f.seen {
		if old == 0 { // every tree extends the empty one
			continue
		}
		hashes, err := builder.ConsistencyProof(ctx, old, size)
		if err == nil {
			err = proof.VerifyConsistency(hasher, old, size, hashes, oldRoot, root)
		}
		if err != nil {
			return fmt.Errorf("proof from size %d to %d: %w", old, size, err)
		}
	}
	if _, err := builder.InclusionProof(ctx, size); err == nil {
		return errors.New("a proof of an entry that is not there")
	}
	return nil
}

// sample picks every index of a small log; else the first, the last, and those around powers of two.
func sample(size uint64) []uint64 {
	var picked []uint64
	for i := range size {
		if size <= 2000 || i == size-1 || i&(i-1) == 0 || i&(i+1) == 0 {
			picked = append(picked, i)
		}
	}
	return picked
}
