// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"image/png"
	"regexp"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

func TestHTML(t *testing.T) {
	page, err := sample().HTML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sample.html", page)
	s := string(page)

	// The policy must forbid all but the picture and this very style.
	style := between(t, s, "<style>", "</style>")
	sum := sha256.Sum256([]byte(style))
	csp := between(t, s, `<meta http-equiv="Content-Security-Policy" content="`, `"`)
	if want := "default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"; csp != want {
		t.Errorf("policy %q; want %q", csp, want)
	}
	for _, re := range []string{`(?i)<script`, `(?i)\son\w+=`, `(?i)https?://`, `(?i)<(link|iframe|object|embed|form|base|a)\b`, `(?i)@import|url\(`} {
		if m := regexp.MustCompile(re).FindString(s); m != "" {
			t.Errorf("the page has %q", m)
		}
	}
	picture, err := base64.StdEncoding.DecodeString(between(t, s, `src="data:image/png;base64,`, `"`))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	if got := zxing(t, img); got != sample().OTPAuth {
		t.Errorf("the picture says %q", got)
	}
}

func TestHTMLEscapes(t *testing.T) {
	c := sample()
	c.Issuer = `<b>"&'</b>`
	c.InstanceID = "<script>alert(1)</script>"
	issuer := "%3Cb%3E%22%26%27%3C%2Fb%3E"
	c.OTPAuth = "otpauth://totp/" + issuer + ":alice@web-1?secret=" + c.Secret + "&issuer=" + issuer
	c.Escrow = []string{"</pre><img src=x>"}
	page, err := c.HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<b>", "<script", "<img src=x"} {
		if bytes.Contains(page, []byte(bad)) {
			t.Errorf("%q is not escaped", bad)
		}
	}
	if _, err := card.Parse(mustText(t, c)); err != nil {
		t.Error(err)
	}
}

func mustText(t *testing.T, c card.Card) []byte {
	t.Helper()
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func between(t *testing.T, s, before, after string) string {
	t.Helper()
	_, s, ok := strings.Cut(s, before)
	s, _, ok2 := strings.Cut(s, after)
	if !ok || !ok2 {
		t.Fatalf("no %q … %q", before, after)
	}
	return s
}
