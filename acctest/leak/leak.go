// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package leak looks for a secret where it must not be: in files, trees, disks
// and logs, in every form somebody could have written it down in.
//
// A [Needles] knows the forms, a [Hit] says where which of them was found. No
// error, no [Hit] and no printed [Needles] ever holds the secret itself.
//
// # What is searched
//
// Everything: file contents whatever their kind and size, the plain contents of
// gzip files as well, names of files and the targets of symbolic links.
// [Needles.Tree] stops at mount points only, and says how much it has read, so
// that a search of nothing does not pass for a search without finding.
//
// # Limits
//
// Letters are compared without regard to case. A backup code is found where no
// other digit touches it, as eight digits turn up by chance within longer
// numbers. Other compressions, encryption and forms that were taken apart
// (a QR code's modules among them) are not seen.
package leak

import (
	"fmt"
	"slices"
)

// Hit is one place where a needle was found.
type Hit struct {
	File   string // as given or, in a tree, relative to its top with slashes
	Kind   string // the form, as "secret, hex"
	Offset int64  // of the needle's last byte in the file's contents; -1 in a name
}

func (h Hit) String() string {
	if h.Offset < 0 {
		return fmt.Sprintf("%s: %s, in its name", h.File, h.Kind)
	}
	return fmt.Sprintf("%s: %s, at byte %d", h.File, h.Kind, h.Offset)
}

// Files returns the names of the files with hits, sorted, each once.
func Files(hits []Hit) []string {
	var files []string
	for _, h := range hits {
		files = append(files, h.File)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Without returns the hits that are not in known as well: what a search of the
// same place has found before the secret was born is a coincidence.
func Without(hits, known []Hit) []Hit {
	return slices.DeleteFunc(slices.Clone(hits), func(h Hit) bool { return slices.Contains(known, h) })
}
