// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Bounds on what a hostile input can make of open, fetch and verify.
const (
	maxFound  = 4096      // different age files that are tried
	maxFaults = 256       // envelopes that cannot be opened, which are listed
	maxTrials = 1 << 15   // uses of an identity on a recipient; see [trials]
	maxSealed = 512 << 10 // bytes of one envelope in text, with all that a log puts in between
)

// errLong is the fault of an envelope in text that no card is long enough for.
var errLong = errors.New("is too large to be an enrollment card")

// errTooMany is the fault of the finding that stands for all that were left out.
var errTooMany = errors.New("and those after it are left out: the input holds too many; open a smaller part of it")

// errTrials is the fault of the envelopes for which no trial was left.
var errTrials = errors.New("the input has too many recipients to try them all; open a smaller part of it")

// A collection holds the findings of one input: each age file once, in whatever
// form it occurs first.
type collection struct {
	found []finding
	full  bool // nothing more is taken

	seen   map[[sha256.Size]byte]bool
	faults int
	whole  int // findings that are whole
	bare   int // bytes of those in bare base64
}

// file is the binary age file of a finding, or what it has instead.
func (f finding) file() []byte {
	file, err := seal.Dearmor(f.sealed)
	if err != nil {
		return f.sealed
	}
	return file
}

func (c *collection) add(f finding) {
	if c.full {
		return
	}
	file := f.file()
	// What is no age file will not open either, and is listed as damaged then.
	hopeless := f.fault != nil || !bytes.HasPrefix(file, []byte(binaryIntro))
	sum := sha256.Sum256(file)
	if f.fault == nil && c.seen[sum] {
		return
	}
	if hopeless {
		c.faults++
	}
	if c.faults > maxFaults || len(c.seen) >= maxFound {
		c.full = true
		f = finding{form: f.form, line: f.line, fault: errTooMany}
	} else if f.fault == nil {
		if c.seen == nil {
			c.seen = map[[sha256.Size]byte]bool{}
		}
		c.seen[sum] = true
		switch {
		case f.form == formBase64:
			c.bare += len(file)
		case !hopeless:
			c.whole++
		}
	}
	c.found = append(c.found, f)
}
