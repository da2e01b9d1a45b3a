// Golog checks a tlog-tiles log (https://c2sp.org/tlog-tiles) with the packages
// of the Go checksum database, sumdb/note and sumdb/tlog. It shares no code with
// the log: it reads every tile and every entry bundle, computes the tree again
// from the entries, and proves and checks what a client would.
//
// Usage:
//
//	golog -url URL -vkey VKEY [-old NOTE] [-receipt FILE -entry FILE] [-proofs=false]
//	golog keygen NAME
//	golog sign SKEYFILE <text >note
//
// URL is the log's prefix: http, https, or file:///folder for a log in files.
// VKEY is the log's Ed25519 key; signatures by other keys are ignored.
// NOTE is an earlier checkpoint of the log, which must be of the same tree.
// The receipt is a tlog-proof (https://c2sp.org/tlog-proof) of the entry.
// With -proofs=false the log need not answer /v1/proofs.
//
// It prints a line for each stage that holds and, last, "ok: size N root HASH".
// At the first mismatch it names the resource and exits with status 1; wrong
// usage exits with status 2. Keygen prints a private key and its public key.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("golog: ")
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "keygen":
		keygen(args[1])
	case len(args) == 2 && args[0] == "sign":
		sign(args[1])
	default:
		verify()
	}
}

// check ends the program if err is not nil. Every check that golog makes ends here.
func check(resource string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", resource, err)
	}
}

func verify() {
	url := flag.String("url", "", "`prefix` of the log")
	vkey := flag.String("vkey", "", "Ed25519 verifier `key` of the log")
	old := flag.String("old", "", "`file` with an earlier checkpoint")
	receipt := flag.String("receipt", "", "tlog-proof `file`, needs -entry")
	entry := flag.String("entry", "", "`file` with the entry of the receipt")
	proofs := flag.Bool("proofs", true, "check what /v1/proofs answers")
	flag.Parse()
	if *url == "" || *vkey == "" || flag.NArg() > 0 || (*receipt == "") != (*entry == "") {
		flag.Usage()
		os.Exit(2)
	}
	key, err := note.NewVerifier(*vkey)
	check("-vkey", err)

	v := newVerifier(*url, key)
	v.checkpoint()
	v.tiles()
	v.entries()
	v.tree()
	v.proofs()
	if *old != "" {
		v.old(*old)
	}
	if *proofs {
		v.answers()
	}
	if *receipt != "" {
		v.receipt(*receipt, *entry)
	}
	fmt.Printf("ok: size %d root %s\n", v.head.N, v.head.Hash)
}

func keygen(name string) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	check(name, err)
	fmt.Printf("%s\n%s\n", skey, vkey)
}

func sign(skeyFile string) {
	skey, err := os.ReadFile(skeyFile)
	check("private key", err)
	signer, err := note.NewSigner(strings.TrimSpace(string(skey)))
	check(skeyFile, err)
	text, err := io.ReadAll(os.Stdin)
	check("text", err)
	msg, err := note.Sign(&note.Note{Text: string(text)}, signer)
	check("text", err)
	_, err = os.Stdout.Write(msg)
	check("note", err)
}
