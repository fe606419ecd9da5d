// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"
)

// A block that was lost at a document's end often leaves valid YAML behind, and
// a weaker policy. So a document that begins with firstLine is complete only if
// it ends with lastLine, which is YAML's own mark of a document's end.
const (
	firstLine = `# A totp policy, complete with a last line of "...".` + "\n"
	lastLine  = "..."
)

// Marshal returns the policy in its canonical form: the keys in the order of
// [Policy], one value a line, and marks at both ends by which [Parse] sees
// whether it is complete. What Parse accepts and Marshal writes, Parse reads as
// the same again. The error is [ErrTooLarge].
func (p *Policy) Marshal() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(firstLine)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode((*plainPolicy)(p)); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	b.WriteString(lastLine + "\n")
	if b.Len() > maxSize {
		return nil, &Error{Rule: ErrTooLarge, Fix: "name fewer users in one layer"}
	}
	return b.Bytes(), nil
}

// plainPolicy is a Policy without methods.
type plainPolicy Policy
