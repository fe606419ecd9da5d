// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package page holds the page that opens enrollment cards for owners who install
// nothing: one HTML file, built from src/ by build.mjs and committed, so that Go
// alone builds totpctl.
//
// # Promises
//
// The page works from a disk, without network, and its Content-Security-Policy
// forbids every request. It finds envelopes as totpctl open does, takes a card as
// [github.com/packer-plugin-totp/packer-plugin-totp/secrets/card.Parse] does and
// says of it what [github.com/packer-plugin-totp/packer-plugin-totp/secrets/card.Card.HTML]
// says; tests hold the two together. What comes out of an envelope gets onto the
// page as text, never as markup. The file is the same whenever and wherever it is
// built from the same sources.
//
// # Limits
//
// It opens what is sealed to native age keys, X25519 and post-quantum, not to SSH
// keys, hardware or passphrases. A browser does not let a page wipe memory: what
// was opened is gone when the page is closed, and not before.
package page

import _ "embed"

//go:generate npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
//go:generate node build.mjs page.html

//go:embed page.html
var html []byte

// HTML returns the page.
func HTML() []byte { return html }
