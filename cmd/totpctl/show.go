// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

const (
	// pageWidth is the width of a card in columns.
	pageWidth = 80

	// imagePixels is the width of the image: large enough to print, small enough
	// for any screen.
	imagePixels = 640
)

// write puts the cards where they were asked for: on standard output, unless a
// form was named. Files come first, so that a failure there shows nothing.
func (o openOptions) write(cards []card.Card) error {
	asked := false
	if o.png != "" {
		asked = true
		image, err := cards[0].PNG(imagePixels)
		if err != nil {
			return err
		}
		if err := put(o.png, image, "the QR code", cards[0]); err != nil {
			return err
		}
	}
	if o.html != "" {
		asked = true
		page, err := cards[0].HTML()
		if err != nil {
			return err
		}
		if err := put(o.html, page, "the card", cards[0]); err != nil {
			return err
		}
	}
	if o.knownHosts != "" {
		asked = true
		if err := o.writeKnownHosts(cards[0]); err != nil {
			return err
		}
	}
	if o.json {
		return writeJSON(cards)
	}
	if asked {
		return nil
	}
	return o.show(cards)
}

func put(name string, data []byte, what string, c card.Card) error {
	if name == "-" {
		return writeStdout(data)
	}
	if err := writeNew(name, data); err != nil {
		return err
	}
	printf("wrote %s of %s to %q", what, account(c), name)
	return nil
}

// writeJSON prints the machine line of each card.
func writeJSON(cards []card.Card) error {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	for _, c := range cards {
		if err := lines.Encode(c); err != nil {
			return err
		}
	}
	return writeStdout(out.Bytes())
}

// show prints the pages.
func (o openOptions) show(cards []card.Card) error {
	terminal := isTerminal(os.Stdout)
	color := o.color == "always" ||
		o.color == "auto" && terminal && os.Getenv("TERM") != "dumb" && enableEscapes(os.Stdout) == nil
	var out bytes.Buffer
	for i, c := range cards {
		page, err := c.Page(card.PageOptions{Color: color})
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(page)
	}
	if err := writeStdout(out.Bytes()); err != nil {
		return err
	}
	if !terminal {
		return nil
	}
	// After the card, where it is seen.
	if width := terminalWidth(os.Stdout); width > 0 && width < pageWidth {
		warningf("the terminal is %d columns wide, and the QR code may be broken", width)
		hintf("make it %d wide, or write an image: --png %s", pageWidth, imageName(cards))
	}
	return nil
}

// imageName proposes a name for the image of the first card.
func imageName(cards []card.Card) string {
	return fmt.Sprintf("%s.png", cards[0].User)
}
