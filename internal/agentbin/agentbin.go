// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package agentbin holds the built agents that the Packer plugin uploads to a
// guest and that totpctl can hand out. Packer installs a plugin as one single
// file, so they must be inside of it.
//
// The build tag embed_agent embeds agents/totp-agent-linux-ARCH.gz, which
// `make agent` builds and git ignores. Without the tag the package is empty: a
// clean checkout builds, vets and tests without agents. With the tag but without
// the files it does not compile, so that no release can lack them.
package agentbin

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

var (
	// ErrNotEmbedded means that this program was built without agents.
	ErrNotEmbedded = errors.New("built without agents")

	// ErrNoArch means that there is no agent for an architecture.
	ErrNoArch = errors.New("no agent for this architecture")

	// ErrDamaged means that an embedded file is not what `make agent` writes.
	ErrDamaged = errors.New("embedded agent is damaged")
)

// maxSize bounds an unpacked agent in bytes. The agent is held under 11 MB; a
// file beyond this is not ours.
const maxSize = 16 << 20

// Archs returns the architectures with an embedded agent in the words of
// GOARCH, sorted. It returns none where the program was built without agents.
func Archs() []string { return slices.Sorted(maps.Keys(packed)) }

// Agent returns the Linux agent for an architecture in the words of GOARCH, as
// the bytes of an executable. It fails with ErrNotEmbedded, ErrNoArch or
// ErrDamaged.
func Agent(goarch string) ([]byte, error) { return agent(packed, goarch) }

func agent(packed map[string][]byte, goarch string) ([]byte, error) {
	if len(packed) == 0 {
		return nil, fmt.Errorf("agent: %w; build with `make build`", ErrNotEmbedded)
	}
	gz, ok := packed[goarch]
	if !ok {
		archs := slices.Sorted(maps.Keys(packed))
		return nil, fmt.Errorf("agent: %q: %w; there is one for %s", goarch, ErrNoArch, strings.Join(archs, " and "))
	}
	r, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return nil, fmt.Errorf("agent: %q: %w: %w", goarch, ErrDamaged, err)
	}
	bin, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("agent: %q: %w: %w", goarch, ErrDamaged, err)
	}
	if len(bin) > maxSize || !bytes.HasPrefix(bin, []byte("\x7fELF")) {
		return nil, fmt.Errorf("agent: %q: %w: not an ELF file of at most %d bytes", goarch, ErrDamaged, maxSize)
	}
	return bin, nil
}
