// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package page_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"image"
	"image/color"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page"
	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page/pagetest"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// maxPage is what the page may have, in bytes.
const maxPage = 250_000

func TestPage(t *testing.T) {
	text := string(page.HTML())
	t.Logf("the page has %d bytes", len(text))
	if len(text) > maxPage {
		t.Errorf("the page has %d bytes, more than %d", len(text), maxPage)
	}
	policy := regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(text)
	if policy == nil {
		t.Fatal("the page has no Content-Security-Policy")
	}
	if !strings.HasPrefix(policy[1], "default-src 'none'; ") {
		t.Errorf("the policy begins otherwise than with default-src 'none': %s", policy[1])
	}
	for _, m := range regexp.MustCompile(`(?s)<(script|style)>(.*?)</`).FindAllStringSubmatch(text, -1) {
		sum := sha256.Sum256([]byte(m[2]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy[1], want) {
			t.Errorf("the policy does not allow the %s of %d bytes: %s is missing", m[1], len(m[2]), want)
		}
	}
	for _, word := range []string{"unsafe", "http", "*"} {
		if strings.Contains(policy[1], word) {
			t.Errorf("the policy has %q: %s", word, policy[1])
		}
	}
	for _, tag := range []string{`<link`, `<img`, `<iframe`, ` src=`, ` style=`, ` onclick=`} {
		if head, _, _ := strings.Cut(text, "<script>"); strings.Contains(head, tag) {
			t.Errorf("the page has %q", tag)
		}
	}
}

const (
	aliceID = "abcdefgh234567ijklmnopqrsu"
	bobID   = "zyxwvuts765432rqponmlkjihg"
)

func newCard(edit func(*card.Card)) card.Card {
	c := card.Card{
		V: card.Version, Type: card.Type, ID: aliceID, Generation: 1, InstanceID: "i-0a1b2c3d", Hostname: "web-1", User: "alice",
		Issuer: "Example Hosting", Created: time.Date(2025, 3, 1, 12, 30, 0, 0, time.UTC),
		Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", Algorithm: "SHA1", Digits: 6, Period: 30,
		BackupCodes: []string{"12345678", "23456789", "34567890", "45678901", "56789012", "67890123", "78901234", "89012345"},
		HostKeys:    []string{hostKey(1)}, Recipients: []string{"sha256:0123456789abcdef"}, Agent: "0.1.0",
	}
	if edit != nil {
		edit(&c)
	}
	if c.OTPAuth == "" {
		c.OTPAuth = "otpauth://totp/" + escape(c.Issuer) + ":" + c.User + "@" + c.Hostname + "?secret=" + c.Secret + "&issuer=" + escape(c.Issuer) + "&algorithm=SHA1&digits=6&period=30"
	}
	return c
}

// escape is RFC 3986 for every byte that is not a letter or digit.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func hostKey(seed byte) string {
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public())
	if err != nil {
		panic(err)
	}
	entry, err := card.HostKey(string(ssh.MarshalAuthorizedKey(key)))
	if err != nil {
		panic(err)
	}
	return entry
}

type key struct{ name, identity, recipient string }

// keyKinds are one key of each kind that the page opens, and their kinds' names.
func keyKinds(t *testing.T) []key {
	t.Helper()
	x, xr, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	h, hr, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	return []key{{"X25519", x, xr}, {"hybrid", h, hr}}
}

func sealed(t *testing.T, text []byte, recipients ...string) []byte {
	t.Helper()
	var to []seal.Recipient
	for _, s := range recipients {
		r, err := seal.ParseRecipient(s)
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, r)
	}
	file, err := seal.Seal(text, to)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func text(t *testing.T, c card.Card) []byte {
	t.Helper()
	b, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func armored(t *testing.T, file []byte) []byte {
	t.Helper()
	b, err := seal.Armor(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConformance: whatever a server seals, the page's script opens, in every
// form in which a channel carries it.
func TestConformance(t *testing.T) {
	node := pagetest.Start(t)
	c := newCard(nil)
	others := keyKinds(t)
	for i, k := range keyKinds(t) {
		other := others[i]
		for _, to := range [][]string{{k.recipient}, {other.recipient, k.recipient}} {
			full := sealed(t, text(t, c), to...)
			short, err := c.Compact()
			if err != nil {
				t.Fatal(err)
			}
			block, err := console.Encode(c.ID, c.User, full)
			if err != nil {
				t.Fatal(err)
			}
			banner := "-- Pre-authentication banner message from server: ----------------------------\r\n| " +
				strings.ReplaceAll(strings.TrimSpace(string(armored(t, full))), "\n", "\r\n| ") +
				"\r\n-- End of banner message from server -----------------------------------------\r\n"
			for form, input := range map[string][]byte{
				"binary":  full,
				"armored": armored(t, full),
				"crlf":    bytes.ReplaceAll(armored(t, full), []byte("\n"), []byte("\r\n")),
				"console": block,
				"putty":   []byte(banner),
				"base64":  []byte(base64.StdEncoding.EncodeToString(full)),
				"compact": []byte(base64.StdEncoding.EncodeToString(sealed(t, short, to...))),
			} {
				t.Run(fmt.Sprintf("%s/%d/%s", k.name, len(to), form), func(t *testing.T) {
					r := node.Open(t, input, "# created: now\n# public key: "+k.recipient+"\n"+k.identity+"\n")
					if len(r.Opened) != 1 || len(r.Failed) > 0 {
						t.Fatalf("opened %d, failed %q, problem %q", len(r.Opened), r.Failed, r.Problem)
					}
					o := r.Opened[0]
					if o.Card["secret"] != c.Secret || o.Card["user"] != c.User || o.Card["id"] != c.ID || o.Stanzas != len(to) {
						t.Errorf("the card is %v, for %d recipients", o.Card, o.Stanzas)
					}
					if got, want := decodeQR(t, o.QR), o.Card["otpauth"]; got != want {
						t.Errorf("the QR code says %q, want %q", got, want)
					}
					if form != "compact" && o.Card["otpauth"] != c.OTPAuth {
						t.Errorf("otpauth is %q, want %q", o.Card["otpauth"], c.OTPAuth)
					}
				})
			}
		}
	}
}

// decodeQR reads a code by a decoder that has nothing to do with what drew it.
func decodeQR(t *testing.T, dark [][]bool) string {
	t.Helper()
	const scale, quiet = 4, 4
	size := (len(dark) + 2*quiet) * scale
	img := image.NewGray(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			i, j := y/scale-quiet, x/scale-quiet
			if i < 0 || j < 0 || i >= len(dark) || j >= len(dark) || !dark[i][j] {
				img.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result.GetText()
}

// TestSaysWhatTotpctlSays: the page has the same sentences as the page that
// totpctl open --html writes.
func TestSaysWhatTotpctlSays(t *testing.T) {
	node := pagetest.Start(t)
	k := keyKinds(t)[0]
	for name, c := range map[string]card.Card{
		"plain": newCard(nil),
		"reset": newCard(func(c *card.Card) {
			c.Generation, c.Supersedes, c.Issuer = 3, bobID, "Ünïcode & <b>Söhne</b> \"GmbH\""
			c.Escrow, c.Recipients = []string{"age1abcd…wxyz", "ssh-ed25519 SHA256:abc"}, []string{"sha256:0123456789abcdef", "sha256:0123456789abcde0"}
		}),
		"bare": newCard(func(c *card.Card) {
			c.BackupCodes, c.HostKeys, c.InstanceID = nil, nil, ""
			c.Created = time.Date(2025, 3, 1, 23, 59, 59, 0, time.FixedZone("", 3600))
		}),
		"long": newCard(func(c *card.Card) {
			c.BackupCodes = append(c.BackupCodes, "90123456", "91234567")
			c.HostKeys = append(c.HostKeys, hostKey(2), "ssh-rsa "+strings.Fields(hostKey(3))[1])
			c.User, c.Hostname = "a"+strings.Repeat("b", 31), strings.Repeat("h", 64)
		}),
	} {
		page, err := c.HTML()
		if err != nil {
			t.Fatal(err)
		}
		r := node.Open(t, sealed(t, text(t, c), k.recipient), k.identity)
		if len(r.Opened) != 1 {
			t.Fatalf("%s: problem %q", name, r.Said)
		}
		if want := htmlTexts(string(page)); !slices.Equal(r.Opened[0].Texts, want) {
			for i := range min(len(want), len(r.Opened[0].Texts)) {
				if want[i] != r.Opened[0].Texts[i] {
					t.Fatalf("%s: the page says\n%q\nand totpctl\n%q; bring src/core/content.js up to secrets/card/content.go", name, r.Opened[0].Texts[i], want[i])
				}
			}
			t.Errorf("%s: the page says %d things, and totpctl %d", name, len(r.Opened[0].Texts), len(want))
		}
	}
}

// htmlTexts returns the texts of the page that totpctl writes.
func htmlTexts(page string) []string {
	_, body, _ := strings.Cut(page, "<body>")
	var texts []string
	for _, m := range regexp.MustCompile(`(?s)<(?:h1|h2|p|th|td|pre)>\n?(.*?)\n?</`).FindAllStringSubmatch(body, -1) {
		texts = append(texts, html.UnescapeString(m[1]))
	}
	return texts
}

// TestTakesTheSameCards: of cards that somebody forged, the page takes those
// that totpctl takes, and no other.
func TestTakesTheSameCards(t *testing.T) {
	node := pagetest.Start(t)
	line := func(c card.Card) map[string]any {
		all := bytes.Split(bytes.TrimSpace(text(t, c)), []byte("\n"))
		var o map[string]any
		if err := json.Unmarshal(all[len(all)-1], &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	compact := func() map[string]any {
		b, err := newCard(nil).Compact()
		if err != nil {
			t.Fatal(err)
		}
		var o map[string]any
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	bad := []any{nil, "", " ", "x", "\x1b[31mred", "\u202eevil", "a\nb", "<script>alert(1)</script>", "a b", "ü", 0, 1, -1, 2, 1.5, 6, 30, 1e10, true,
		[]any{}, []any{"x"}, []any{1}, []any{nil}, strings.Repeat("a", 32), strings.Repeat("a", 33), strings.Repeat("b", 64), strings.Repeat("b", 65),
		strings.Repeat("A", 43), aliceID, bobID, "otpauth://totp/x?secret=y", "javascript:alert(1)", "OTPAUTH://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example+Hosting",
		"2025-03-01T12:30:00Z", "2025-03-01T12:30:00+14:00", "2025-02-30T12:30:00Z", "2025-13-01T12:30:00Z", "yesterday", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
		[]any{"12345678"}, []any{"02345678"}, []any{"1234567"}, []any{"sha256:0123456789abcdef"}, []any{"sha256:0123456789ABCDEF"},
		[]any{hostKey(1)}, []any{strings.Replace(hostKey(1), "SHA256:", "SHA256:A", 1)}, []any{strings.Fields(hostKey(2))[0] + " " + strings.Fields(hostKey(2))[1] + " " + strings.Fields(hostKey(1))[2]},
		[]any{"age1abcd…wxyz"}, []any{"age1…abcd…wxyz"}, []any{strings.Repeat("e", 77)}, []any{"12345678", "12345678", "12345678", "12345678", "12345678", "12345678", "12345678", "12345678", "12345678", "12345678", "12345678"},
	}
	uris := []string{
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example+Hosting",
		"otpauth://totp/Example%20Hosting%3Aalice%40web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting&period=30",
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting&image=https://example.com/x.png",
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting&issuer=Example%20Hosting",
		"otpauth://hotp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting",
		"otpauth://totp/Example%20Hosting:alice@web-2?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting",
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXQ&issuer=Example%20Hosting",
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
		"otpauth://totp/Example%2:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting",
		"otpauth://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting#x",
		"otpauth://u@totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting",
		"javascript://totp/Example%20Hosting:alice@web-1?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example%20Hosting",
	}
	taken, n := 0, 0
	try := func(what string, o map[string]any) {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if takesTheSame(t, node, what, b) {
			taken++
		}
	}
	for field := range line(newCard(nil)) {
		for i, v := range bad {
			o := line(newCard(nil))
			o[field] = v
			try(fmt.Sprintf("%s: %d: %v", field, i, v), o)
		}
	}
	for field := range compact() {
		for i, v := range bad {
			o := compact()
			o[field] = v
			try(fmt.Sprintf("compact %s: %d: %v", field, i, v), o)
		}
	}
	for _, uri := range uris {
		o := line(newCard(nil))
		o["otpauth"] = uri
		try(uri, o)
	}
	if taken == 0 || taken == n {
		t.Errorf("%d of %d cards are good", taken, n)
	}
	t.Logf("%d cards, %d of them good", n, taken)
}

// FuzzTakesTheSameCards does so with any text.
func FuzzTakesTheSameCards(f *testing.F) {
	for _, spec := range []card.Card{newCard(nil), newCard(func(c *card.Card) { c.BackupCodes, c.HostKeys, c.InstanceID = nil, nil, "" })} {
		whole, err := spec.Text()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole)
		f.Add(whole[bytes.LastIndexByte(bytes.TrimSpace(whole), '\n')+1:])
		compact, err := spec.Compact()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(compact)
	}
	node := pagetest.Start(f)
	f.Fuzz(func(t *testing.T, text []byte) { takesTheSame(t, node, "fuzz", text) })
}

// takesTheSame compares whether the page and totpctl accept the text of a card, and
// returns whether totpctl does.
func takesTheSame(t *testing.T, node *pagetest.Node, what string, text []byte) bool {
	t.Helper()
	_, err := card.ParseCompact(text)
	if err == card.ErrNoCard {
		_, err = card.Parse(text)
	}
	if problem := node.ParseCard(t, text); (err == nil) != (problem == "") {
		t.Errorf("%s: the page says %q, totpctl %v, of %q", what, problem, err, text)
	}
	return err == nil
}

// TestForgedCards: what somebody writes into a card to steer a terminal, or to turn
// the order of what is shown, is not shown, nor quoted in the problem with it.
func TestForgedCards(t *testing.T) {
	node := pagetest.Start(t)
	k := keyKinds(t)[0]
	all := bytes.Split(bytes.TrimSpace(text(t, newCard(nil))), []byte("\n"))
	var fields map[string]any
	if err := json.Unmarshal(all[len(all)-1], &fields); err != nil {
		t.Fatal(err)
	}
	for name, v := range fields {
		for _, bad := range []string{"\x1b[2J\x1b]0;owned\x07", "\u202ecod.exe", "\u200b\u2066hidden", "<img src=x onerror=alert(1)>\x00"} {
			forged := maps.Clone(fields)
			switch v := v.(type) {
			case []any:
				forged[name] = []any{v[0], bad}
			case string:
				forged[name] = v + bad
			default:
				forged[name] = bad
			}
			line, err := json.Marshal(forged)
			if err != nil {
				t.Fatal(err)
			}
			r := node.Open(t, sealed(t, line, k.recipient), k.identity)
			if len(r.Opened) != 0 || r.Problem == "" || strings.ContainsFunc(r.Said, func(c rune) bool { return !unicode.IsPrint(c) }) || strings.Contains(r.Said, "<img") {
				t.Errorf("%s %q: opened %d, said %q", name, forged[name], len(r.Opened), r.Said)
			}
		}
	}
}

// TestMakesKeys: seal and age take the keys that the page makes.
func TestMakesKeys(t *testing.T) {
	node := pagetest.Start(t)
	k := node.MakeKey(t)
	r, err := seal.ParseRecipient(k.Recipient)
	if err != nil || r.Kind() != seal.Hybrid {
		t.Fatalf("the recipient is of the kind %v: %v", r.Kind(), err)
	}
	ids, err := seal.ParseIdentities([]byte(k.File), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte("text")
	got, err := seal.Open(sealed(t, want, k.Recipient), ids...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("opened %q: %v", got, err)
	}
	if again := node.MakeKey(t); again.Identity == k.Identity {
		t.Error("the second key is the first")
	}
}

// TestProblems: what is not opened is called by its name, and no word of it is a
// key or a secret.
func TestProblems(t *testing.T) {
	node := pagetest.Start(t)
	kinds := keyKinds(t)
	mine, theirs := kinds[0], keyKinds(t)[0]
	mistyped := "Q"
	if mine.identity[40] == 'Q' {
		mistyped = "P"
	}
	c := newCard(nil)
	file := sealed(t, text(t, c), mine.recipient)
	armor := armored(t, file)
	block, err := console.Encode(c.ID, c.User, file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(file)
	flipped[len(flipped)-1] ^= 1
	header := bytes.Clone(file)
	header[bytes.Index(header, []byte("\n--- "))+10] ^= 1
	older := newCard(func(c *card.Card) { c.ID, c.Supersedes, c.Generation = bobID, aliceID, 2 })
	other := newCard(func(c *card.Card) { c.User = "mallory" })
	marks, err := console.Encode(c.ID, c.User, sealed(t, text(t, other), mine.recipient))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		input []byte
		keys  string
		want  string
	}{
		{"empty", []byte(" \n"), mine.identity, "empty"},
		{"other text", []byte("hello"), mine.identity, "nothing"},
		{"key for envelope", []byte(mine.identity), mine.identity, "is key"},
		{"opened card", text(t, c), mine.identity, "is card"},
		{"public key", []byte(mine.recipient), mine.identity, "is public key"},
		{"no key", armor, "", "no key"},
		{"wrong key", armor, theirs.identity, "wrong key"},
		{"wrong kind of key", armor, kinds[1].identity, "wrong key"},
		{"public key for key", armor, mine.recipient, "key public"},
		{"half a key", armor, mine.identity[:50], "key damaged"},
		{"mistyped key", armor, mine.identity[:40] + mistyped + mine.identity[41:], "key damaged"},
		{"ssh key", armor, "-----BEGIN OPENSSH PRIVATE KEY-----\n", "key ssh"},
		{"putty key", armor, "PuTTY-User-Key-File-3: ssh-ed25519\n", "key ssh"},
		{"plugin", armor, "AGE-PLUGIN-YUBIKEY-1QQQQ", "key plugin"},
		{"locked key", armor, "age-encryption.org/v1\n-> scrypt x 18\n", "key locked"},
		{"no such key", armor, "hello", "key unknown"},
		{"cut off", armor[:len(armor)-50], mine.identity, "cut off"},
		{"line lost", regexp.MustCompile(`(?m)^[A-Za-z0-9+/]{64}\n`).ReplaceAll(armor[:200], nil), mine.identity, "cut off"},
		{"flipped", flipped, mine.identity, "damaged"},
		{"flipped armored", armored(t, flipped), mine.identity, "damaged"},
		{"flipped header", header, mine.identity, "damaged"},
		{"cut in the payload", file[:len(file)-100], mine.identity, "damaged"},
		{"cut in the header", file[:60], mine.identity, "damaged"},
		{"log cut", block[:len(block)/3], mine.identity, "incomplete"},
		{"other marks", marks, mine.identity, "other card"},
		{"not a card", sealed(t, []byte("hello"), mine.recipient), mine.identity, "no card"},
		{"newer", sealed(t, []byte(`{"v":2,"type":"totp-enrollment"}`), mine.recipient), mine.identity, "newer card"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := node.Open(t, tt.input, tt.keys)
			if r.Problem != tt.want {
				t.Errorf("problem %q, want %q: %s", r.Problem, tt.want, r.Said)
			}
			for _, secret := range []string{mine.identity[20:40], theirs.identity[20:40], c.Secret, c.BackupCodes[0]} {
				if strings.Contains(r.Said, secret) {
					t.Errorf("the page says a secret: %s", r.Said)
				}
			}
		})
	}
	t.Run("replaced", func(t *testing.T) {
		r := node.Open(t, slices.Concat(armor, armored(t, sealed(t, text(t, older), mine.recipient)), armored(t, flipped)), mine.identity)
		if len(r.Opened) != 1 || r.Opened[0].Card["id"] != bobID || !slices.Equal(r.Failed, []string{"damaged"}) {
			t.Errorf("opened %v, failed %q", r.Opened, r.Failed)
		}
	})
	t.Run("hidden reader", func(t *testing.T) {
		r := node.Open(t, sealed(t, text(t, c), mine.recipient, theirs.recipient), mine.identity)
		if len(r.Opened) != 1 || !strings.Contains(strings.Join(r.Opened[0].Origin, " "), "Somebody else may be reading along") {
			t.Errorf("the page says %+v", r)
		}
	})
}

// TestConsoleLogs: the page puts logs together as console.Decode does.
func TestConsoleLogs(t *testing.T) {
	node := pagetest.Start(t)
	complete := 0
	for seed := range uint64(400) {
		for _, f := range decodesTheSame(t, node, damagedLog(t, seed)) {
			if f.Complete {
				complete++
			}
		}
	}
	t.Logf("%d envelopes were whole", complete)
	if complete < 50 {
		t.Errorf("only %d envelopes were whole", complete)
	}
}

// FuzzConsoleLogs does so with any text that is not a file of another form.
func FuzzConsoleLogs(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(damagedLog(f, seed))
	}
	node := pagetest.Start(f)
	f.Fuzz(func(t *testing.T, log []byte) {
		if bytes.HasPrefix(bytes.TrimLeft(log, " \t\r\n"), []byte("age-encryption.org/")) {
			t.Skip("a binary age file is no log")
		}
		decodesTheSame(t, node, log)
	})
}

// decodesTheSame compares what the page and console.Decode find in a log.
func decodesTheSame(t *testing.T, node *pagetest.Node, log []byte) []console.Found {
	t.Helper()
	want := console.Decode(log)
	var got []console.Found
	for _, f := range node.Find(t, log) {
		if f.Form != "console block" {
			continue
		}
		if len(f.Missing) == 0 {
			f.Missing = nil
		}
		got = append(got, console.Found{ID: f.ID, User: f.User, Sealed: f.File, Complete: f.Fault == "", Lines: f.Lines, Missing: f.Missing})
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the page finds\n%+v\nand totpctl\n%+v\nin\n%q", got, want, log)
	}
	return want
}
