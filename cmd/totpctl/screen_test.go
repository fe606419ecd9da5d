// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// A theme is the colours a terminal gives to text that asks for none. What a
// program prints with colours 0 to 15 is up to the theme as well, so only the
// fixed part of the palette is known here.
type theme struct {
	name       string
	ink, paper uint8
}

var (
	dark  = theme{"light on dark", 215, 40}
	light = theme{"dark on light", 40, 235}
)

// A cell is one character with its colours, as grey levels.
type cell struct {
	r          rune
	ink, paper uint8
}

// A screen is what a terminal of some width shows, scrollback included.
type screen struct {
	width int
	theme theme
	rows  [][]cell
}

// show interprets the output of a program as a terminal does. It knows newline,
// carriage return and the colours of SGR; any other control sequence is an
// error, since a card has none.
func show(t *testing.T, output []byte, width int, th theme) *screen {
	t.Helper()
	s := &screen{width: width, theme: th, rows: [][]cell{nil}}
	ink, paper := th.ink, th.paper
	for text := string(output); text != ""; {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			codes, after, ok := strings.Cut(rest, "m")
			if !ok || strings.Trim(codes, "0123456789;") != "" {
				t.Fatalf("control sequence that is no colour: %.20q", text)
			}
			ink, paper = s.colours(t, codes, ink, paper)
			text = after
			continue
		}
		r := []rune(text[:min(len(text), 4)])[0]
		text = text[len(string(r)):]
		last := len(s.rows) - 1
		switch {
		case r == '\n':
			s.rows = append(s.rows, nil)
		case r == '\r':
			if strings.HasPrefix(text, "\n") {
				continue
			}
			t.Fatal("carriage return in the middle of a line")
		case r < ' ' || r == 0x7f:
			t.Fatalf("control character %q", r)
		case len(s.rows[last]) == width:
			s.rows = append(s.rows, []cell{{r, ink, paper}})
		default:
			s.rows[last] = append(s.rows[last], cell{r, ink, paper})
		}
	}
	return s
}

func (s *screen) colours(t *testing.T, codes string, ink, paper uint8) (uint8, uint8) {
	list := strings.Split(codes, ";")
	for i := 0; i < len(list); i++ {
		switch code := list[i]; {
		case code == "" || code == "0":
			ink, paper = s.theme.ink, s.theme.paper
		case (code == "38" || code == "48") && i+2 < len(list) && list[i+1] == "5":
			n, err := strconv.Atoi(list[i+2])
			if err != nil {
				t.Fatal(err)
			}
			grey := fixedColour(t, n)
			if code == "38" {
				ink = grey
			} else {
				paper = grey
			}
			i += 2
		default:
			t.Fatalf("colour %q is up to the theme", codes)
		}
	}
	return ink, paper
}

// fixedColour is the grey level of one of the 256 colours that no theme changes:
// the cube of 6 by 6 by 6 and the greys.
func fixedColour(t *testing.T, n int) uint8 {
	switch {
	case n >= 232 && n <= 255:
		return uint8(8 + 10*(n-232))
	case n >= 16:
		n -= 16
		r, g, b := n/36, n/6%6, n%6
		if r == g && g == b {
			return []uint8{0, 95, 135, 175, 215, 255}[r]
		}
	}
	t.Fatalf("colour %d is not grey, or up to the theme", n)
	return 0
}

// image draws the screen as a camera sees it.
func (s *screen) image() *image.Gray {
	const w, h = 8, 16
	img := image.NewGray(image.Rect(0, 0, s.width*w, len(s.rows)*h))
	for i := range img.Pix {
		img.Pix[i] = s.theme.paper
	}
	for y, row := range s.rows {
		for x, c := range row {
			for py := range h {
				for px := range w {
					level := c.paper
					if inked(c.r, px, py, h) {
						level = c.ink
					}
					img.SetGray(x*w+px, y*h+py, color.Gray{Y: level})
				}
			}
		}
	}
	return img
}

// inked tells whether a character has ink at a place. Blocks are drawn as they
// are; of other characters it is enough that they are something.
func inked(r rune, px, py, h int) bool {
	switch r {
	case ' ':
		return false
	case '█':
		return true
	case '▀':
		return py < h/2
	case '▄':
		return py >= h/2
	}
	return px >= 1 && px <= 6 && py >= 4 && py <= 12 && (int(r)+px*py)%3 == 0
}

// text is what can be read, without colours.
func (s *screen) text() string {
	var b strings.Builder
	for _, row := range s.rows {
		for _, c := range row {
			b.WriteRune(c.r)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// scan returns what each of the decoders reads from the screen.
func (s *screen) scan(t *testing.T) map[string]string {
	t.Helper()
	img := s.image()
	return map[string]string{"gozxing": zxing(t, img), "zbarimg": zbar(t, img)}
}

func zxing(t *testing.T, img image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
	if err != nil {
		return ""
	}
	return result.GetText()
}

func zbar(t *testing.T, img image.Image) string {
	t.Helper()
	needs(t, "zbarimg")
	var picture bytes.Buffer
	if err := png.Encode(&picture, img); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "screen.png")
	if err := os.WriteFile(name, picture.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	// It fails where it sees none.
	out, _ := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", name).Output()
	return strings.TrimSuffix(string(out), "\n")
}
