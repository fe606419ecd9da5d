// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	qrcode "github.com/skip2/go-qrcode"
)

// ErrQR means that a text does not fit into a QR code, or the code not into the
// picture.
var ErrQR = errors.New("does not fit into the QR code")

// quietZone is the light border that ISO/IEC 18004 wants around a code, in
// modules.
const quietZone = 4

// maxPNG keeps a picture within what anything can show.
const maxPNG = 4096

// QRHalfBlocks returns a QR code as lines of text, two modules to a character,
// within a border of so many light modules. With darkOnLight the blocks are the
// dark modules, for terminals with dark text on a light background; otherwise
// they are the light ones, for the others. The error is [ErrQR].
//
// The code has the lowest level of error correction: a screen has no scratches,
// and modules as large as possible are read more easily.
func QRHalfBlocks(content string, quiet int, darkOnLight bool) ([]string, error) {
	dark, err := modules(content)
	if err != nil {
		return nil, err
	}
	quiet = max(quiet, 0)
	size := len(dark) + 2*quiet
	// ink tells whether the module is drawn. Rows below the last are light: a
	// line has two, and the number of rows is odd.
	ink := func(x, y int) bool {
		x, y = x-quiet, y-quiet
		inside := x >= 0 && y >= 0 && x < len(dark) && y < len(dark)
		return (inside && dark[y][x]) == darkOnLight
	}
	lines := make([]string, 0, (size+1)/2)
	for y := 0; y < size; y += 2 {
		var b strings.Builder
		b.Grow(3 * size)
		for x := range size {
			switch top, bottom := ink(x, y), ink(x, y+1); {
			case top && bottom:
				b.WriteString("█")
			case top:
				b.WriteString("▀")
			case bottom:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		lines = append(lines, b.String())
	}
	return lines, nil
}

// PNG returns the QR code of the card's key URI as a square picture, black on
// white, with its quiet zone. The error is [ErrQR] if it does not fit into so
// many pixels.
func (c Card) PNG(pixels int) ([]byte, error) {
	dark, err := modules(c.OTPAuth)
	if err != nil {
		return nil, err
	}
	size := len(dark) + 2*quietZone
	if pixels < size || pixels > maxPNG {
		return nil, fmt.Errorf("picture of %d pixels: %w; take %d to %d", pixels, ErrQR, size, maxPNG)
	}
	// Modules of a whole number of pixels, so that all are alike; what is over
	// widens the border.
	scale := pixels / size
	offset := (pixels - scale*len(dark)) / 2
	img := image.NewPaletted(image.Rect(0, 0, pixels, pixels), color.Palette{color.White, color.Black})
	for y, row := range dark {
		for x, d := range row {
			if !d {
				continue
			}
			for dy := range scale {
				i := img.PixOffset(offset+x*scale, offset+y*scale+dy)
				for dx := range scale {
					img.Pix[i+dx] = 1
				}
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// modules returns the code without border, true for dark.
func modules(content string) ([][]bool, error) {
	q, err := qrcode.New(content, qrcode.Low)
	if err != nil {
		return nil, fmt.Errorf("text of %d bytes: %w", len(content), ErrQR)
	}
	q.DisableBorder = true
	return q.Bitmap(), nil
}
