// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	escape "html"
)

const style = `:root{color-scheme:light}
body{max-width:44rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif;color:#000;background:#fff}
h1{font-size:1.4rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin-top:2rem}
img{display:block;width:20rem;max-width:100%;image-rendering:pixelated}
th{text-align:left;font-weight:normal;color:#555;padding-right:1.5rem;vertical-align:top}
td,pre{font-family:ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
pre{background:#f3f3f3;padding:.5rem .8rem}
@media print{body{margin:0}}
`

// htmlPixels is the size of the QR code in the page's picture; the page scales
// it.
const htmlPixels = 640

// HTML returns the card as one static page: no script, no request to anywhere
// (its Content-Security-Policy forbids both), the QR code a picture within it.
// It holds the secret, so it belongs where the card may be read. The errors are
// a [*FieldError] and [ErrQR].
func (c Card) HTML() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	picture, err := c.PNG(htmlPixels)
	if err != nil {
		return nil, err
	}
	styleHash := sha256.Sum256([]byte(style))
	var b bytes.Buffer
	text := func(s string) { b.WriteString(escape.EscapeString(s)) }
	element := func(tag, s string) {
		b.WriteString("<" + tag + ">")
		text(s)
		b.WriteString("</" + tag + ">\n")
	}
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" +
		`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'sha256-` +
		base64.StdEncoding.EncodeToString(styleHash[:]) + `'; base-uri 'none'; form-action 'none'">` + "\n" +
		"<meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"robots\" content=\"noindex\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
	element("title", "Enrollment card for "+c.account())
	b.WriteString("<style>" + style + "</style>\n</head>\n<body>\n")
	for i, s := range c.content(html) {
		heading := "h2"
		if i == 0 {
			heading = "h1"
		}
		element(heading, s.title)
		for _, p := range s.parts {
			switch {
			case p.qr:
				b.WriteString(`<img alt="QR code of the secret" src="data:image/png;base64,` + base64.StdEncoding.EncodeToString(picture) + "\">\n")
			case p.para != "":
				element("p", p.para)
			case p.rows != nil:
				b.WriteString("<table>\n")
				for _, r := range p.rows {
					if r[1] == "" {
						continue
					}
					b.WriteString("<tr><th>")
					text(r[0])
					b.WriteString("</th><td>")
					text(r[1])
					b.WriteString("</td></tr>\n")
				}
				b.WriteString("</table>\n")
			default:
				b.WriteString("<pre>\n")
				for _, l := range p.lines {
					text(l + "\n")
				}
				b.WriteString("</pre>\n")
			}
		}
	}
	b.WriteString("</body>\n</html>\n")
	return b.Bytes(), nil
}
