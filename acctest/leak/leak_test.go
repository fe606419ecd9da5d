// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package leak_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/leak"
)

const (
	secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	code   = "10203047"
)

func needles(t testing.TB) *leak.Needles {
	t.Helper()
	n, err := leak.New(secret, []string{code, "98765432"})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEveryFormIsFound(t *testing.T) {
	raw, err := base32.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(s string, width int, end string) string {
		var b strings.Builder
		for i := 0; i < len(s); i += width {
			b.WriteString(s[i:min(i+width, len(s))] + end)
		}
		return b.String()
	}
	uri := "otpauth://totp/Example:alice%40host?secret=" + secret + "&issuer=Example"
	tests := []struct{ name, text string }{
		{"upper", secret},
		{"lower", strings.ToLower(secret)},
		{"in a word", "x" + secret + "y"},
		{"groups of four", wrap(secret, 4, " ")},
		{"groups of five, two blanks", wrap(secret, 5, "  ")},
		{"hyphens", wrap(secret, 8, "-")},
		{"wrapped", wrap(secret, 20, "\r\n")},
		{"UTF-16", wrap(secret, 1, "\x00")},
		{"raw", "\x00\x01" + string(raw) + "\xff"},
		{"hex", hex.EncodeToString(raw)},
		{"HEX", strings.ToUpper(hex.EncodeToString(raw))},
		{"hex with colons", wrap(hex.EncodeToString(raw), 2, ":")},
		{"hex dump", wrap(hex.EncodeToString(raw), 4, " ")},
		{"percent", "%" + strings.TrimSuffix(wrap(hex.EncodeToString(raw), 2, "%"), "%")},
		{"escapes", `\x` + strings.TrimSuffix(wrap(hex.EncodeToString(raw), 2, `\x`), `\x`)},
		{"Go bytes", fmt.Sprint(raw)},
		{"JSON bytes", strings.ReplaceAll(fmt.Sprint(raw), " ", ",")},
		{"base64", base64.StdEncoding.EncodeToString(raw)},
		{"base64url", base64.RawURLEncoding.EncodeToString(raw)},
		{"reversed", func() string { b := []byte(secret); slices.Reverse(b); return string(b) }()},
		{"URI", uri},
		{"hex of the URI", hex.EncodeToString([]byte(uri))},
		{"code", "codes: " + code + "\n"},
		{"code at the end", "x " + code},
		{"code in JSON", `["` + code + `"]`},
		{"code in groups", "1020 3047"},
		{"code with a hyphen", "1020-3047,"},
		{"code as UTF-16", "1\x000\x002\x000\x003\x000\x004\x007\x00"},
		{"second code", "98765432"},
	}
	for shift := range 3 {
		plain := strings.Repeat("p", 10+shift) + uri + "\n" + code
		text := base64.StdEncoding.EncodeToString([]byte(plain))
		tests = append(tests,
			struct{ name, text string }{fmt.Sprintf("base64 of the URI, shifted by %d", shift), text},
			struct{ name, text string }{fmt.Sprintf("base64 of the URI, wrapped, shifted by %d", shift), wrap(text, 19, "\n")},
			struct{ name, text string }{fmt.Sprintf("base64 of raw, shifted by %d", shift),
				base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x80", shift) + string(raw) + "rest"))})
	}
	n := needles(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// One byte at a time: nothing may depend on where a read ends.
			hits, err := n.Reader("file", iotest.OneByteReader(strings.NewReader(tt.text)))
			if err != nil || len(hits) == 0 {
				t.Fatalf("hits %v, %v", hits, err)
			}
			if whole := n.Bytes("file", []byte(tt.text)); !slices.Equal(hits, whole) {
				t.Errorf("in one read %v, byte by byte %v", whole, hits)
			}
			for _, h := range hits {
				if strings.Contains(h.String(), secret) || strings.Contains(h.String(), code) {
					t.Errorf("the hit holds what it found: %v", h)
				}
			}
		})
	}
}

func TestOtherThingsAreNotFound(t *testing.T) {
	n := needles(t)
	for _, text := range []string{
		"", secret[:31], secret[1:], "1" + code, code + "0", code[:7], "10203048", "1020  3047",
		strings.Replace(secret, "P", "Q", 1),
	} {
		if hits := n.Bytes("file", []byte(text)); len(hits) != 0 {
			t.Errorf("%q: %v", text, hits)
		}
	}
}

func TestHitsAcrossReads(t *testing.T) {
	n := needles(t)
	for _, at := range []int{0, 64<<10 - 16, 256<<10 - 1, 512<<10 - 33, 1 << 20} {
		data := bytes.Repeat([]byte{'x'}, at)
		data = append(append(data, secret...), "tail"...)
		hits := n.Bytes("file", data)
		if len(hits) != 1 || hits[0].Offset != int64(at+len(secret)-1) {
			t.Errorf("at %d: %v", at, hits)
		}
	}
}

func TestReaderErrorsAreReturned(t *testing.T) {
	broken := errors.New("broken")
	hits, err := needles(t).Reader("file", io.MultiReader(strings.NewReader(secret), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || len(hits) != 1 {
		t.Errorf("%v, %v", hits, err)
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	// Enough text around it that no compressor stores the bytes as they are.
	around := strings.Repeat("a line of a log, with nothing in it\n", 100)
	io.WriteString(gz, around+"log: "+secret+"\n"+around)
	gz.Close()
	write("clean", "nothing")
	write("a/b/plain", "x\n"+secret+"\n")
	write("a/log.gz", packed.String())
	write("a/torn.gz", packed.String()[:packed.Len()-9])
	write(code+".d/clean", "nothing")
	if err := os.Symlink("/x?"+strings.ToLower(secret), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	n := needles(t)
	hits, extent, err := n.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{code + ".d", "a/b/plain", "a/log.gz (gunzipped)", "a/torn.gz (gunzipped)", "link"}
	if got := leak.Files(hits); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if extent.Files != 5 || extent.Bytes == 0 {
		t.Errorf("extent %+v", extent)
	}
	if left := leak.Without(hits, hits[:2]); len(left) != len(hits)-2 {
		t.Errorf("without two of %d: %d", len(hits), len(left))
	}
	if _, _, err := n.Tree(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing top: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, s := range []string{"", "JBSWY3DP", secret + "A", secret[:31] + "1"} {
		if _, err := leak.New(s, nil); !errors.Is(err, leak.ErrSecret) {
			t.Errorf("secret of length %d: %v", len(s), err)
		}
	}
	for _, c := range []string{"", "1234567", "123456789", "1234567a"} {
		if _, err := leak.New(secret, []string{c}); !errors.Is(err, leak.ErrCode) {
			t.Errorf("code of length %d: %v", len(c), err)
		}
	}
}

func TestNeedlesDoNotPrint(t *testing.T) {
	n := needles(t)
	for _, text := range []string{fmt.Sprint(n), fmt.Sprintf("%+v %#v %s %q %x", n, n, n, n, n)} {
		if hits := n.Bytes("text", []byte(text)); len(hits) != 0 || !strings.Contains(text, "needles") {
			t.Errorf("printed as %q", text)
		}
	}
}

func TestJoin(t *testing.T) {
	other, err := leak.New("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", nil)
	if err != nil {
		t.Fatal(err)
	}
	both := leak.Join(needles(t), other)
	if hits := both.Bytes("x", []byte(secret+" GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")); len(hits) != 2 {
		t.Errorf("%v", hits)
	}
}

func BenchmarkSearch(b *testing.B) {
	data := make([]byte, 16<<20)
	r := rand.NewChaCha8([32]byte{})
	r.Read(data)
	n := needles(b)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		n.Bytes("data", data)
	}
}
