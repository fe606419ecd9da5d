// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// A screen draws terminal cells as pixels, so that a decoder sees what the
// camera of a phone sees.
type screen struct {
	name           string
	ink, paper     color.Gray // of text without colours of its own
	cellW, cellH   int
	columns, extra int // of the terminal, and rows of text above and below
}

var (
	black = color.Gray{Y: 0}
	white = color.Gray{Y: 255}
	// Themes have no pure colours.
	ash  = color.Gray{Y: 40}
	bone = color.Gray{Y: 215}
)

var (
	lightOnDark = []screen{
		{"white on black", white, black, 8, 16, 80, 3},
		{"bone on ash", bone, ash, 8, 16, 80, 3},
		{"narrow cells", white, black, 9, 21, 80, 3},
	}
	darkOnLight = []screen{
		{"black on white", black, white, 8, 16, 80, 3},
		{"ash on bone", ash, bone, 8, 16, 80, 3},
		{"narrow cells", black, white, 9, 21, 80, 3},
	}
)

const (
	blackOnWhite = "\x1b[38;5;16;48;5;231m"
	reset        = "\x1b[0m"
)

// draw shows lines of blocks. A line may be coloured as a page's QR code is.
func (s screen) draw(lines []string) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, s.columns*s.cellW, (len(lines)+2*s.extra)*s.cellH))
	draw.Draw(img, img.Bounds(), image.NewUniform(s.paper), image.Point{}, draw.Src)
	for i, line := range lines {
		ink, paper := s.ink, s.paper
		if rest, ok := strings.CutPrefix(line, blackOnWhite); ok {
			ink, paper = black, white
			line = strings.TrimSuffix(rest, reset)
		}
		x, y, half := 0, (i+s.extra)*s.cellH, s.cellH/2
		for _, r := range line {
			top, bottom := paper, paper
			if r == '█' || r == '▀' {
				top = ink
			}
			if r == '█' || r == '▄' {
				bottom = ink
			}
			draw.Draw(img, image.Rect(x, y, x+s.cellW, y+half), image.NewUniform(top), image.Point{}, draw.Src)
			draw.Draw(img, image.Rect(x, y+half, x+s.cellW, y+s.cellH), image.NewUniform(bottom), image.Point{}, draw.Src)
			x += s.cellW
		}
	}
	return img
}

// qrLines returns the lines of a page that the QR code is made of.
func qrLines(page string) []string {
	var lines []string
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, blackOnWhite) || strings.ContainsAny(line, "█▀▄") {
			lines = append(lines, line)
		}
	}
	return lines
}

// zxing decodes with the Go port of ZXing, from which many apps have theirs. A
// hand holds no phone still, so it has more than one frame: about one in fifty
// of the densest codes is not found in the very straight one.
func zxing(t *testing.T, img image.Image) string {
	t.Helper()
	for _, degrees := range []float64{0, -7, 180} {
		bmp, err := gozxing.NewBinaryBitmapFromImage(turn(img, degrees))
		if err != nil {
			t.Fatal(err)
		}
		r, err := qrcode.NewQRCodeReader().Decode(bmp, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
		if err == nil {
			return r.GetText()
		}
	}
	return ""
}

// turn returns the image turned around its centre, within the same frame; what
// comes into the frame has the colour of the corner.
func turn(img image.Image, degrees float64) image.Image {
	if degrees == 0 {
		return img
	}
	b := img.Bounds()
	out := image.NewGray(b)
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	cx, cy := float64(b.Dx())/2, float64(b.Dy())/2
	for y := range b.Dy() {
		for x := range b.Dx() {
			dx, dy := float64(x)-cx, float64(y)-cy
			from := image.Pt(int(cx+cos*dx+sin*dy), int(cy-sin*dx+cos*dy))
			if !from.In(b) {
				from = b.Max.Sub(image.Pt(1, 1))
			}
			out.Set(x, y, img.At(from.X, from.Y))
		}
	}
	return out
}

// zbar decodes with zbarimg.
func zbar(t *testing.T, img image.Image) string {
	t.Helper()
	if _, err := exec.LookPath("zbarimg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("zbarimg is missing; apt install zbar-tools")
		}
		t.Skip("zbarimg is missing; apt install zbar-tools")
	}
	file := filepath.Join(t.TempDir(), "screen.png")
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output() // fails if it sees none
	return strings.TrimSuffix(string(out), "\n")
}

var decoders = []struct {
	name   string
	decode func(*testing.T, image.Image) string
}{{"zxing", zxing}, {"zbar", zbar}}

// quietModules measures the light border of the code in an image: how many
// modules of light there are between the dark surroundings, or the image's
// edge, and the code, on the narrowest side.
func quietModules(t *testing.T, img *image.Gray, cellW, cellH int) int {
	t.Helper()
	light := func(x, y int) bool { return img.GrayAt(x, y).Y > 127 }
	area := img.Bounds()
	if !light(area.Max.X-1, 0) { // on a dark screen the light area begins where the code's border does
		area = bounds(img.Bounds(), light)
	}
	code := bounds(area, func(x, y int) bool { return !light(x, y) })
	if code.Empty() {
		t.Fatal("no code in the image")
	}
	return min((code.Min.X-area.Min.X)/cellW, (area.Max.X-code.Max.X)/cellW,
		(code.Min.Y-area.Min.Y)*2/cellH, (area.Max.Y-code.Max.Y)*2/cellH)
}

// bounds returns the smallest rectangle with all pixels for which in holds.
func bounds(within image.Rectangle, in func(x, y int) bool) image.Rectangle {
	var r image.Rectangle
	for y := within.Min.Y; y < within.Max.Y; y++ {
		for x := within.Min.X; x < within.Max.X; x++ {
			if in(x, y) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return r
}

func TestQRScans(t *testing.T) {
	for _, c := range []struct {
		name string
		card card.Card
	}{{"sample", sample()}, {"longest", longest()}, {"plainest", plainest()}} {
		text, err := c.card.Text()
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.card.Page(card.PageOptions{Color: true})
		if err != nil {
			t.Fatal(err)
		}
		dark, err := card.QRHalfBlocks(c.card.OTPAuth, 4, true)
		if err != nil {
			t.Fatal(err)
		}
		both := append(append([]screen{}, lightOnDark...), darkOnLight...)
		for _, shown := range []struct {
			name    string
			lines   []string
			screens []screen
		}{
			{"plain text", qrLines(string(text)), lightOnDark},
			{"dark on light", dark, darkOnLight},
			{"colour", qrLines(page), both},
		} {
			for _, s := range shown.screens {
				img := s.draw(shown.lines)
				for _, d := range decoders {
					t.Run(strings.Join([]string{c.name, shown.name, s.name, d.name}, "/"), func(t *testing.T) {
						if got := d.decode(t, img); got != c.card.OTPAuth {
							t.Errorf("decoded %q; want %q", got, c.card.OTPAuth)
						}
						if n := quietModules(t, img, s.cellW, s.cellH); n < 4 {
							t.Errorf("quiet zone of %d modules; want 4", n)
						}
					})
				}
			}
		}
	}
}

// TestQRNeedsItsQuietZone shows that the measure above, and decoders, miss the
// quiet zone where it is missing.
func TestQRNeedsItsQuietZone(t *testing.T) {
	for quiet := range 4 {
		lines, err := card.QRHalfBlocks(sample().OTPAuth, quiet, false)
		if err != nil {
			t.Fatal(err)
		}
		s := lightOnDark[0]
		img := s.draw(lines)
		if n := quietModules(t, img, s.cellW, s.cellH); n != quiet {
			t.Errorf("measured %d modules of %d", n, quiet)
		}
		if quiet == 0 && zxing(t, img) != "" {
			t.Error("zxing decodes a code without quiet zone: the screens here are kinder than a camera")
		}
	}
}

func TestQRHalfBlocks(t *testing.T) {
	for _, quiet := range []int{-1, 0, 1, 4} {
		for _, dark := range []bool{true, false} {
			lines, err := card.QRHalfBlocks("x", quiet, dark)
			if err != nil {
				t.Fatal(err)
			}
			size := 21 + 2*max(quiet, 0) // version 1
			if len(lines) != (size+1)/2 {
				t.Errorf("quiet %d: %d lines; want %d", quiet, len(lines), (size+1)/2)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) != size {
					t.Errorf("quiet %d: line of %d columns; want %d", quiet, utf8.RuneCountInString(l), size)
				}
			}
		}
	}
	if _, err := card.QRHalfBlocks(strings.Repeat("x", 3000), 4, true); err == nil {
		t.Error("3000 bytes fit into a QR code")
	}
}

func TestPNG(t *testing.T) {
	for _, pixels := range []int{60, 200, 640, 1000} {
		b, err := sample().PNG(pixels)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got := img.Bounds().Size(); got != image.Pt(pixels, pixels) {
			t.Errorf("picture of %v; want %d square", got, pixels)
		}
		if pixels < 200 {
			continue // one pixel a module: not for cameras
		}
		for _, d := range decoders {
			if got := d.decode(t, img); got != sample().OTPAuth {
				t.Errorf("%d pixels: %s decoded %q", pixels, d.name, got)
			}
		}
	}
	for _, pixels := range []int{-1, 0, 40, 5000} {
		if _, err := sample().PNG(pixels); err == nil {
			t.Errorf("picture of %d pixels: no error", pixels)
		}
	}
}
