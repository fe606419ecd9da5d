// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	age1 = "age1ncf8wagn7m2a3jgyrkfkaatakmjzjnvk5qwkyva7yd8hct4mcgwsdjdt6l"
	age2 = "age1e77dzwvl90smv57c4d35md8692ggp4e8l9959aregycwr2wg84wq7gmfhl"
	age3 = "age1tm6jw9ypq6g4c7xds46n35lf84spfksypuel8h3pldku20qftuvqr076n4"
	ssh1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBIjKL9714HDIUgg64szdH7oW3UU8yovxolV5GQy5iW0"

	ecdsa    = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJLZDpbwZYEodshVrOLFk8y3xw+sbnpHTH46ysB7LxRYxfLlARo1LndIp0wTs6IxyZx8xavbMEA/4vZ6S8vY5ns="
	plugin   = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"
	identity = "AGE-SECRET-KEY-1QQPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZPQZP"
	token    = "AAECAwQFBgcICQoLDA0ODw"
)

var hybrid1, hybrid2 = testdata("hybrid1.txt"), testdata("hybrid2.txt")

func testdata(name string) string {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(b))
}

// A want is a problem that is expected. Its place is not checked where line is 0.
type want struct {
	path         string
	line, column int
	rule         error
}

// check compares problems by field, place and rule, and holds every one to the
// form that errors have.
func check(t *testing.T, err error, wants ...want) {
	t.Helper()
	var errs Errors
	if err != nil && !errors.As(err, &errs) {
		t.Fatalf("error %v is a %T, want Errors", err, err)
	}
	for i, e := range errs {
		if i >= len(wants) {
			t.Errorf("not expected: %v", e)
			continue
		}
		w := wants[i]
		if e.Path != w.path || !errors.Is(e, w.rule) || w.line != 0 && (e.Line != w.line || e.Column != w.column) {
			t.Errorf("got  %v\nwant %d:%d: %s: %v", e, w.line, w.column, w.path, w.rule)
		}
		text := e.Error()
		if strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%q has more than one line", text)
		}
		if e.Fix == "" || strings.HasSuffix(text, ".") {
			t.Errorf("%q has no remedy, or a full stop", text)
		}
		if len(text) > 600 {
			t.Errorf("an error of %d bytes: %.100q", len(text), text)
		}
	}
	for _, w := range wants[min(len(errs), len(wants)):] {
		t.Errorf("missing: %d:%d: %s: %v", w.line, w.column, w.path, w.rule)
	}
}

func mustParse(t testing.TB, layer Layer, doc string) *Policy {
	t.Helper()
	p, err := Parse(layer, layer.File(), []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
