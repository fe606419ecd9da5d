// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package browser

import (
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// Scan reads a QR code off the screen, as a phone does: the first element of a
// selector with what is around it, as in [Page.Picture].
func (p *Page) Scan(selector string, around float64) string {
	p.t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(p.Picture(selector, around))
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		p.t.Fatalf("the QR code cannot be read: %v", err)
	}
	return r.GetText()
}
