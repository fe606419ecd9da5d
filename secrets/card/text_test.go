// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

func TestText(t *testing.T) {
	for _, tt := range []struct {
		name string
		card card.Card
	}{{"sample", sample()}, {"longest", longest()}, {"plainest", plainest()}} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := tt.card.Text()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".txt", text)
			if len(text)%512 != 0 {
				t.Errorf("%d bytes, not a multiple of 512", len(text))
			}
			if !utf8.Valid(text) {
				t.Error("not UTF-8")
			}
			// What age(1) asks of a text before it writes it to a terminal, and
			// stricter: no tab, no carriage return, no formatting character.
			for _, r := range string(text) {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("unprintable %U", r)
				}
			}
			lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			for i, l := range lines[:len(lines)-1] {
				if w := width(l); w > 80 {
					t.Errorf("line %d has %d columns", i+1, w)
				}
			}
			if bytes.Contains(text, []byte("null")) {
				t.Error("a list is null")
			}
			got, err := card.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fields(tt.card), fields(got), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Parse (-written +read):\n%s", diff)
			}
		})
	}
}

// width counts columns as terminals do for what cards hold: two for East Asian
// characters, one for others.
func width(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) {
			n++
		}
	}
	return n
}

// fields is a card that cmp can look into.
func fields(c card.Card) any {
	type open card.Card
	return open(c)
}

func TestTextOfWideIssuer(t *testing.T) {
	c := sample()
	c.Issuer = strings.Repeat("雲", 14)
	issuer := strings.Repeat("%E9%9B%B2", 14)
	c.OTPAuth = "otpauth://totp/" + issuer + ":alice@web-1?secret=" + c.Secret + "&issuer=" + issuer
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if w := width(l); w > 81 && !strings.HasPrefix(l, "{") {
			t.Errorf("line of %d columns: %q", w-1, l)
		}
	}
}

func TestTextNormalisesTime(t *testing.T) {
	c := sample()
	c.Created = c.Created.In(time.FixedZone("", 7200)).Add(999 * time.Millisecond)
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	want, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Error("zone and fraction of a second show in the text")
	}
}

// TestJSONNames holds the names of the JSON object, which others read.
func TestJSONNames(t *testing.T) {
	text, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	line := text[bytes.LastIndexByte(bytes.TrimSpace(text), '\n')+1:]
	want := []string{"v", "type", "id", "generation", "supersedes", "token", "instance_id", "hostname", "user", "issuer", "created",
		"otpauth", "secret", "algorithm", "digits", "period", "backup_codes", "host_keys", "recipients", "escrow", "agent"}
	var object map[string]any
	if err := json.Unmarshal(line, &object); err != nil {
		t.Fatal(err)
	}
	if len(object) != len(want) {
		t.Errorf("%d names; want %d", len(object), len(want))
	}
	at := 0
	for _, name := range want {
		i := bytes.Index(line[at:], []byte(`"`+name+`":`))
		if i < 0 {
			t.Fatalf("no %q after byte %d", name, at)
		}
		at += i
	}
}

func TestPage(t *testing.T) {
	for _, tt := range []struct {
		name string
		card card.Card
	}{{"sample", sample()}, {"longest", longest()}} {
		page, err := tt.card.Page(card.PageOptions{Color: true})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, tt.name+"-color.txt", []byte(page))
		for l := range strings.Lines(page) {
			l = strings.TrimSuffix(l, "\n")
			if rest, ok := strings.CutPrefix(l, blackOnWhite); ok {
				l, ok = strings.CutSuffix(rest, reset)
				if !ok {
					t.Error("colours go on behind the code")
				}
			}
			if strings.Contains(l, "\x1b") {
				t.Errorf("escape sequence in %q", l)
			}
			if w := width(l); w > 80 {
				t.Errorf("line of %d columns: %q", w, l)
			}
		}
		text, err := tt.card.Text()
		if err != nil {
			t.Fatal(err)
		}
		page, err = tt.card.Page(card.PageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), page) {
			t.Error("the plain page is not what Text begins with")
		}
	}
}

func TestValidate(t *testing.T) {
	bidi := "ex\u202eample"
	uri := func(s string) func(*card.Card) { return func(c *card.Card) { c.OTPAuth = s } }
	base := sample().OTPAuth
	for _, tt := range []struct {
		field string
		rule  error
		spoil func(*card.Card)
	}{
		{"v", card.ErrVersion, func(c *card.Card) { c.V = 2 }},
		{"type", card.ErrVersion, func(c *card.Card) { c.Type = "totp" }},
		{"id", card.ErrField, func(c *card.Card) { c.ID = "../../../../../etc/passwd0" }},
		{"id", card.ErrField, func(c *card.Card) { c.ID = c.ID[:25] }},
		{"id", card.ErrField, func(c *card.Card) { c.ID = "" }},
		{"generation", card.ErrField, func(c *card.Card) { c.Generation = 0 }},
		{"generation", card.ErrField, func(c *card.Card) { c.Generation = -1 }},
		{"supersedes", card.ErrField, func(c *card.Card) { c.Supersedes = "before" }},
		{"supersedes", card.ErrField, func(c *card.Card) { c.Supersedes = c.ID }},
		{"token", card.ErrField, func(c *card.Card) { c.Token = c.Token[:42] }},
		{"token", card.ErrField, func(c *card.Card) { c.Token = c.Token[:42] + "+" }},
		{"instance_id", card.ErrField, func(c *card.Card) { c.InstanceID = "i-\x1b[2J" }},
		{"instance_id", card.ErrField, func(c *card.Card) { c.InstanceID = strings.Repeat("i", 129) }},
		{"hostname", card.ErrField, func(c *card.Card) { c.Hostname = "" }},
		{"hostname", card.ErrField, func(c *card.Card) { c.Hostname = "web\n1"; c.OTPAuth = strings.Replace(base, "web-1", "web%0A1", 1) }},
		{"hostname", card.ErrField, func(c *card.Card) {
			c.Hostname = strings.Repeat("h", 65)
			c.OTPAuth = strings.Replace(base, "web-1", c.Hostname, 1)
		}},
		{"user", card.ErrField, func(c *card.Card) { c.User = "../alice" }},
		{"user", card.ErrField, func(c *card.Card) { c.User = "-alice" }},
		{"user", card.ErrField, func(c *card.Card) { c.User = "Alice" }},
		{"user", card.ErrField, func(c *card.Card) { c.User = "" }},
		{"user", card.ErrField, func(c *card.Card) { c.User = strings.Repeat("u", 33) }},
		{"issuer", card.ErrField, func(c *card.Card) {
			c.Issuer = bidi
			c.OTPAuth = strings.ReplaceAll(base, "Example%20Hosting", "ex%E2%80%AEample")
		}},
		{"issuer", card.ErrField, func(c *card.Card) {
			c.Issuer = "a\x1bb"
			c.OTPAuth = strings.ReplaceAll(base, "Example%20Hosting", "a%1Bb")
		}},
		{"issuer", card.ErrField, func(c *card.Card) {
			c.Issuer = "a\xffb"
			c.OTPAuth = strings.ReplaceAll(base, "Example%20Hosting", "a%FFb")
		}},
		{"issuer", card.ErrField, func(c *card.Card) { c.Issuer = "a:b"; c.OTPAuth = strings.ReplaceAll(base, "Example%20Hosting", "a:b") }},
		{"issuer", card.ErrField, func(c *card.Card) {
			c.Issuer = strings.Repeat("i", 65)
			c.OTPAuth = strings.ReplaceAll(base, "Example%20Hosting", c.Issuer)
		}},
		{"created", card.ErrField, func(c *card.Card) { c.Created = time.Time{} }},
		{"created", card.ErrField, func(c *card.Card) { c.Created = time.Time{}.Add(time.Millisecond) }},
		{"created", card.ErrField, func(c *card.Card) { c.Created = time.Date(1, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)) }},
		{"created", card.ErrField, func(c *card.Card) { c.Created = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"otpauth", card.ErrField, uri("")},
		{"otpauth", card.ErrField, uri("https://totp/Example%20Hosting:alice@web-1?secret=" + sample().Secret + "&issuer=Example%20Hosting")},
		{"otpauth", card.ErrField, uri(strings.Replace(base, "totp/", "hotp/", 1))},
		{"otpauth", card.ErrField, uri(strings.Replace(base, "alice", "bob", 1))},
		{"otpauth", card.ErrField, uri(strings.Replace(base, "secret=G", "secret=A", 1))},
		{"otpauth", card.ErrField, uri(strings.Replace(base, "&issuer=Example", "&issuer=Other", 1))},
		{"otpauth", card.ErrField, uri(base + "&digits=8")},
		{"otpauth", card.ErrField, uri(base + "&image=https://example.com/x.png")},
		{"otpauth", card.ErrField, uri(base + "&secret=AAAA")},
		{"otpauth", card.ErrField, uri(base + "#\x1b[2J")},
		{"otpauth", card.ErrField, uri(base + strings.Repeat("&digits=6", 40))},
		{"secret", card.ErrField, func(c *card.Card) { c.Secret = c.Secret[:31] }},
		{"secret", card.ErrField, func(c *card.Card) { c.Secret = strings.ToLower(c.Secret) }},
		{"algorithm", card.ErrField, func(c *card.Card) { c.Algorithm = "SHA256" }},
		{"digits", card.ErrField, func(c *card.Card) { c.Digits = 8 }},
		{"period", card.ErrField, func(c *card.Card) { c.Period = 60 }},
		{"backup_codes", card.ErrField, func(c *card.Card) { c.BackupCodes = make([]string, 11) }},
		{"backup_codes[1]", card.ErrField, func(c *card.Card) { c.BackupCodes[1] = "01234567" }},
		{"backup_codes[1]", card.ErrField, func(c *card.Card) { c.BackupCodes[1] = "1234567\n" }},
		{"host_keys", card.ErrField, func(c *card.Card) { c.HostKeys = make([]string, 17) }},
		{"host_keys[0]", card.ErrField, func(c *card.Card) { c.HostKeys[0] = "" }},
		{"host_keys[1]", card.ErrField, func(c *card.Card) { c.HostKeys[1] = "ssh-ed25519 SHA256:short" }},
		{"host_keys[1]", card.ErrField, func(c *card.Card) { c.HostKeys[1] = rsaEntry + " " + ed25519Blob }},
		{"host_keys[1]", card.ErrField, func(c *card.Card) { c.HostKeys[1] = ed25519Entry + "\nevil ssh-rsa AAAA" }},
		{"host_keys[1]", card.ErrField, func(c *card.Card) { c.HostKeys[1] = strings.Replace(ed25519Entry, "SHA256:5", "SHA256:6", 1) }},
		{"recipients", card.ErrField, func(c *card.Card) { c.Recipients = nil }},
		{"recipients[1]", card.ErrField, func(c *card.Card) { c.Recipients[1] = "age1qqq" }},
		{"escrow[0]", card.ErrField, func(c *card.Card) { c.Escrow[0] = "nobody\x1b[8m" }},
		{"escrow[1]", card.ErrField, func(c *card.Card) { c.Escrow[1] = strings.Repeat("e", 77) }},
		{"agent", card.ErrField, func(c *card.Card) { c.Agent = "" }},
		{"agent", card.ErrField, func(c *card.Card) { c.Agent = "0.1\u2066" }},
	} {
		t.Run(tt.field, func(t *testing.T) {
			c := sample()
			tt.spoil(&c)
			check := func(what string, err error) {
				t.Helper()
				var fe *card.FieldError
				if !errors.As(err, &fe) || fe.Field != tt.field || !errors.Is(err, tt.rule) {
					t.Errorf("%s: %v; want %s: %v", what, err, tt.field, tt.rule)
					return
				}
				if strings.Contains(err.Error(), sample().Secret[:31]) || strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("%s: the error %q shows what it must not", what, err)
				}
			}
			check("Validate", c.Validate())
			_, err := c.Text()
			check("Text", err)
			_, err = c.Page(card.PageOptions{})
			check("Page", err)
			_, err = c.HTML()
			check("HTML", err)
			if c.Created.Year() > 9999 || !utf8.ValidString(c.Issuer) {
				return // JSON cannot say it
			}
			line, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			_, err = card.Parse(line)
			check("Parse", err)
		})
	}
	for _, c := range []card.Card{sample(), longest(), plainest()} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
	c := sample()
	c.OTPAuth += "&algorithm=SHA1&digits=6&period=30"
	if err := c.Validate(); err != nil {
		t.Errorf("with the defaults said: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	text, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	line := text[bytes.LastIndexByte(bytes.TrimSpace(text), '\n')+1:]
	compact, err := sample().Compact()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text []byte
		err  error
	}{
		"alone":           {line, nil},
		"CRLF":            {bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), nil},
		"no newline":      {bytes.TrimSpace(text), nil},
		"unknown field":   {slices.Concat([]byte(`{"new":[1,{}],`), line[1:]), nil},
		"empty":           {nil, card.ErrNoCard},
		"page alone":      {text[:len(text)-len(line)], card.ErrNoCard},
		"cut short":       {text[:len(text)-10], card.ErrNoCard},
		"something after": {slices.Concat(text, []byte("x\n")), card.ErrNoCard},
		"two objects":     {slices.Concat(bytes.TrimSpace(text), []byte("{}")), card.ErrNoCard},
		"wrong type":      {[]byte(`{"v":"1"}`), card.ErrNoCard},
		"not UTF-8":       {[]byte("{\"v\":1,\"issuer\":\"\xff\"}"), card.ErrNoCard},
		"other JSON":      {[]byte(`{"v":1}`), card.ErrVersion},
		"newer":           {bytes.Replace(line, []byte(`"v":1`), []byte(`"v":2`), 1), card.ErrVersion},
		"compact":         {compact, card.ErrVersion},
		"said compact":    {bytes.Replace(line, []byte(card.Type), []byte(card.TypeCompact), 1), card.ErrVersion},
		"too large":       {slices.Concat(make([]byte, card.MaxSize), text), card.ErrTooLarge},
	} {
		if _, err := card.Parse(tt.text); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v; want %v", name, err, tt.err)
		}
	}
}

// TestHidden shows that no way of printing a card shows what it holds.
func TestHidden(t *testing.T) {
	c := sample()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, &c, []card.Card{c}, struct{ C card.Card }{c}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, c.Secret) || strings.Contains(s, c.BackupCodes[0]) || strings.Contains(s, "47455a44") {
				t.Errorf("%s of %T shows the secret", verb, v)
			}
		}
	}
}

func TestTokenMAC(t *testing.T) {
	// printf 'totp-agent/1\0alice' | openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef -binary | basenc --base64url
	const want = "Yi1D4tk7SCwS-d-q0E1fCcP1pPqaqyv1VfT0oYRPqvM"
	if got := card.TokenMAC([]byte("0123456789abcdef"), "alice"); got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	if card.TokenMAC([]byte("0123456789abcdef"), "bob") == want || card.TokenMAC([]byte("0123456789abcdeg"), "alice") == want {
		t.Error("the token does not depend on user and key")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"web-1": "web-1", "Web_1.example.com": "Web_1.example.com", "web 1": "web-1", "wéb": "w-b", "a\x1b[2Jb": "a--2Jb",
		"": "unnamed", "---": "unnamed", "日本": "unnamed", "a/../b": "a-..-b",
		strings.Repeat("h", 70): strings.Repeat("h", 64),
	} {
		if got := card.CleanHostname(in); got != want {
			t.Errorf("CleanHostname(%q) = %q; want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"i-0abc": "i-0abc", "": "", " a b\n": "a b", "a\tb": "a?b", `a"b\`: "a?b?", "é": "?",
		strings.Repeat("i", 127) + " z": strings.Repeat("i", 127),
	} {
		if got := card.CleanInstanceID(in); got != want {
			t.Errorf("CleanInstanceID(%q) = %q; want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("web-1")
	f.Add("\xff \x00")
	f.Fuzz(func(t *testing.T, s string) {
		c := sample()
		c.Hostname, c.InstanceID = card.CleanHostname(s), card.CleanInstanceID(s)
		c.OTPAuth = strings.Replace(c.OTPAuth, "web-1", c.Hostname, 1)
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, c := range []card.Card{sample(), longest(), plainest()} {
		text, err := c.Text()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[bytes.LastIndexByte(bytes.TrimSpace(text), '\n')+1:])
		compact, err := c.Compact()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(compact)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := card.Parse(text); err == nil {
			again, err := c.Text()
			if err != nil {
				t.Fatalf("a card that was read cannot be written: %v", err)
			}
			for _, r := range string(again) {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Fatalf("unprintable %U in the text", r)
				}
			}
			for l := range strings.Lines(string(again)) {
				if width(l) > 81 && l[0] != '{' {
					t.Fatalf("line of %d columns", width(l)-1)
				}
			}
			if _, err := c.HTML(); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := card.ParseCompact(text); err == nil {
			if _, err := c.Page(card.PageOptions{}); err != nil {
				t.Fatalf("a compact card that was read cannot be shown: %v", err)
			}
			again, err := c.Compact()
			if err != nil {
				t.Fatalf("a compact card that was read cannot be written: %v", err)
			}
			if _, err := card.ParseCompact(again); err != nil {
				t.Fatal(err)
			}
		}
	})
}
