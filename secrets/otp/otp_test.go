// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// rfcSecret is the one of RFC 6238 appendix B, "12345678901234567890".
const rfcSecret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

// TestCode uses the times and codes of RFC 6238 appendix B, the last six of
// their eight digits.
func TestCode(t *testing.T) {
	for unix, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		got, err := otp.Code(rfcSecret, time.Unix(unix, 0))
		if got != want || err != nil {
			t.Errorf("at %d: %q, %v; want %q", unix, got, err, want)
		}
	}
	for _, secret := range []string{"", "1", "GEZD GNBV", "gezd", "GEZDGNBV======", "A\n"} {
		if _, err := otp.Code(secret, time.Unix(59, 0)); !errors.Is(err, otp.ErrSecret) {
			t.Errorf("Code(%q): %v; want ErrSecret", secret, err)
		}
	}
}

// source gives 20 bytes for the secret and then the numbers for backup codes.
func source(draws ...uint32) *bytes.Buffer {
	b := bytes.NewBufferString("12345678901234567890")
	for _, d := range draws {
		_ = binary.Write(b, binary.BigEndian, d)
	}
	return b
}

func TestNew(t *testing.T) {
	e, err := otp.New(otp.Params{Issuer: "Example Hosting", Account: "alice@web-1", BackupCodes: 5},
		source(4230000000, 0, 4294967295, 89999999, 90000000, 4229999999, 1, 89999999, 12345678, 2))
	if err != nil {
		t.Fatal(err)
	}
	if e.Secret != rfcSecret {
		t.Error("the secret is not the first 20 bytes")
	}
	if want := "otpauth://totp/Example%20Hosting:alice@web-1?secret=" + rfcSecret + "&issuer=Example%20Hosting"; e.URI != want {
		t.Errorf("URI %q; want %q", e.URI, want)
	}
	// 4230000000 and 4294967295 are out of range, 90000000 and 4229999999 and
	// the second 89999999 give codes that are there already.
	want := []string{"10000000", "99999999", "10000001", "22345678", "10000002"}
	if !slices.Equal(e.BackupCodes, want) {
		t.Errorf("backup codes %q; want %q", e.BackupCodes, want)
	}
}

func TestNewRandom(t *testing.T) {
	p := otp.Params{Issuer: "Example", Account: "alice@web-1", BackupCodes: otp.MaxBackupCodes}
	seen := make(map[string]bool)
	for range 200 {
		e, err := otp.New(p, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if seen[e.Secret] {
			t.Fatal("the same secret twice")
		}
		seen[e.Secret] = true
		if b, err := base32.StdEncoding.DecodeString(e.Secret); err != nil || len(b) != 20 {
			t.Fatalf("secret of %d bytes, %v; want 20", len(b), err)
		}
		codes := slices.Clone(e.BackupCodes)
		slices.Sort(codes)
		if len(slices.Compact(codes)) != otp.MaxBackupCodes || codes[0] < "10000000" || len(codes[0]) != 8 || len(codes[9]) != 8 {
			t.Fatalf("%d different codes, or one of another form", len(codes))
		}
		if _, err := otp.Code(e.Secret, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewErrors(t *testing.T) {
	good := otp.Params{Issuer: "Example", Account: "alice@web-1", BackupCodes: 2}
	for _, tt := range []struct {
		name string
		p    otp.Params
		rand []byte
		err  error
	}{
		{"issuer", otp.Params{Issuer: "a:b", Account: "alice@web-1"}, source().Bytes(), otp.ErrColon},
		{"account", otp.Params{Issuer: "Example", Account: "alice web"}, source().Bytes(), otp.ErrUnprintable},
		{"too many codes", otp.Params{Issuer: "Example", Account: "a", BackupCodes: 11}, source().Bytes(), otp.ErrBackupCodes},
		{"fewer than none", otp.Params{Issuer: "Example", Account: "a", BackupCodes: -1}, source().Bytes(), otp.ErrBackupCodes},
		{"no random bytes", good, nil, otp.ErrRandom},
		{"19 random bytes", good, source().Bytes()[:19], otp.ErrRandom},
		{"enough for one code", good, source(1).Bytes(), otp.ErrRandom},
	} {
		if _, err := otp.New(tt.p, bytes.NewReader(tt.rand)); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v; want %v", tt.name, err, tt.err)
		}
	}
	// A source that repeats itself must not be read for ever, be its number one
	// that is taken once or never.
	for _, b := range []byte{7, 255} {
		r := bytes.NewReader(bytes.Repeat([]byte{b}, 1<<16))
		if _, err := otp.New(good, r); !errors.Is(err, otp.ErrRandom) || r.Len() == 0 {
			t.Errorf("source of %d alone: %v with %d bytes left; want ErrRandom before the end", b, err, r.Len())
		}
	}
	broken := errors.New("broken")
	if _, err := otp.New(good, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("the reader's error is lost: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		issuer string
		rule   error
	}{
		{"Example Hosting", nil}, {"Müller & Söhne", nil}, {"日本", nil}, {"שלום", nil}, {"a/b?c#d%e", nil},
		{strings.Repeat("i", 64), nil}, {strings.Repeat("Ä", 21), nil},
		{"", otp.ErrEmpty}, {"a:b", otp.ErrColon}, {" a", otp.ErrBlank}, {"a ", otp.ErrBlank},
		{"a\nb", otp.ErrUnprintable}, {"a\tb", otp.ErrUnprintable}, {"a\x7fb", otp.ErrUnprintable}, {"a\x1b[2J", otp.ErrUnprintable},
		{"a\u202eb", otp.ErrUnprintable}, {"a\u200bb", otp.ErrUnprintable}, {"a\u00a0b", otp.ErrUnprintable}, {"a\xff", otp.ErrUnprintable}, {"a\ufeffb", otp.ErrUnprintable},
		{strings.Repeat("i", 65), otp.ErrTooLong}, {strings.Repeat("Ä", 22), otp.ErrTooLong},
	} {
		check(t, "issuer", tt.issuer, otp.ValidIssuer(tt.issuer), tt.rule)
	}
	for _, tt := range []struct {
		account string
		rule    error
	}{
		{"alice@web-1", nil}, {strings.Repeat("u", 32) + "@" + strings.Repeat("h", 64), nil}, {"a+b@c", nil},
		{"", otp.ErrEmpty}, {"a:b", otp.ErrColon}, {"a b", otp.ErrUnprintable}, {"é", otp.ErrUnprintable}, {"a\n", otp.ErrUnprintable},
		{strings.Repeat("a", 101), otp.ErrTooLong}, {strings.Repeat("+", 34), otp.ErrTooLong},
	} {
		check(t, "account", tt.account, otp.ValidAccount(tt.account), tt.rule)
	}
}

func check(t *testing.T, name, value string, err, rule error) {
	t.Helper()
	if !errors.Is(err, rule) {
		t.Errorf("%s %q: %v; want %v", name, value, err, rule)
	}
	var ne *otp.NameError
	if rule != nil && (!errors.As(err, &ne) || ne.Name != name || ne.Value != value || ne.Fix == "") {
		t.Errorf("%s %q: %#v", name, value, err)
	}
}

// FuzzURI shows that whatever names are valid come back out of the URI.
func FuzzURI(f *testing.F) {
	f.Add("Example Hosting", "alice@web-1")
	f.Add("R&D + 50%/?#;=é", "a+b%20c@d&e=f")
	f.Fuzz(func(t *testing.T, issuer, account string) {
		e, err := otp.New(otp.Params{Issuer: issuer, Account: account}, source())
		if err != nil {
			t.Skip()
		}
		if len(e.URI) > 425 {
			t.Errorf("URI of %d bytes", len(e.URI))
		}
		u, err := url.Parse(e.URI)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := u.Path, "/"+issuer+":"+account; u.Scheme != "otpauth" || u.Host != "totp" || got != want {
			t.Errorf("label %q; want %q", got, want)
		}
		if diff := cmp.Diff(url.Values{"secret": {rfcSecret}, "issuer": {issuer}}, u.Query()); diff != "" {
			t.Errorf("parameters (-want +got):\n%s", diff)
		}
		if strings.ContainsAny(e.URI, "+ ") {
			t.Errorf("%q: some apps show a plus sign for a blank", e.URI)
		}
	})
}

func TestHidden(t *testing.T) {
	e := otp.Enrollment{Secret: rfcSecret, URI: rfcSecret, BackupCodes: []string{"12345678"}}
	s := otp.State{Secret: rfcSecret, BackupCodes: []string{"12345678"}}
	for _, v := range []any{e, &e, s, &s, []otp.State{s}, struct{ E otp.Enrollment }{e}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			shown(t, verb, fmt.Sprintf(verb, v))
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown(t, "json", string(b))
	}
	shown(t, "%d", fmt.Sprintf("%d", e))
}

func shown(t *testing.T, how, s string) {
	t.Helper()
	if strings.Contains(s, rfcSecret) || strings.Contains(s, "12345678") {
		t.Errorf("%s shows the secret: %s", how, s)
	}
}
