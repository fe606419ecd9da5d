// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// A pamBlock is the entries that authenticate a login, as the template of the PAM
// service has them. Only that of the module that asks for the code can make a login
// succeed; the others count tries.
type pamBlock struct {
	text    string // with the comments
	entries []string
}

// block is the block for a machine. The numbers are those of the module's own limit,
// which parallel tries pass: it reads the state file without a lock.
func (f *facts) block(t *target.Target) (pamBlock, error) {
	limit := otp.Standard
	if f.policy.RateLimit == policy.RateStrict {
		limit = otp.Strict
	}
	text, err := templates.Render(strings.TrimPrefix(target.PAMService, "/"), templates.PAMBlock{
		Module:   target.PAMModule,
		StateDir: target.PAMStateDir,
		Tally:    target.PAMTallyDir,
		Tries:    limit.Attempts,
		Seconds:  limit.Seconds,
		Options:  f.tallyOptions(t),
	})
	if err != nil {
		return pamBlock{}, err
	}
	entries, err := pamLines(target.PAMService, string(text))
	b := pamBlock{text: string(text)}
	for _, e := range entries {
		b.entries = append(b.entries, e.text)
	}
	return b, err
}

// tallyOptions are those that Linux-PAM has from 1.5 on; before, it logs them as
// unknown at each login. Without a configuration file of its own, faillock.conf(5)
// could exempt users.
func (f *facts) tallyOptions(t *target.Target) string {
	b, err := t.ReadFile(f.moduleFile(t, target.PAMTally))
	if err == nil && !bytes.Contains(b, []byte("nodelay")) {
		return ""
	}
	return "conf=/dev/null nodelay"
}

// A pamError is what is wrong with a PAM service file. It is an [ErrPAM].
type pamError struct {
	where, what, fix string

	// foreign: the file is whole, and an administrator has put something into it
	// that we do not understand.
	foreign bool
}

func (e *pamError) Error() string {
	return fmt.Sprintf("%s: %s: %v; %s", e.where, e.what, ErrPAM, e.fix)
}
func (e *pamError) Unwrap() error { return ErrPAM }

// find returns the place of the whole block among the entries that authenticate.
// An entry of somebody else's between two of its lines would be jumped over, or
// jumped to.
func (b pamBlock) find(entries []pamEntry, name string) (at int, ok bool) {
	for i := range entries {
		if i+len(b.entries) > len(entries) {
			break
		}
		if slices.EqualFunc(entries[i:i+len(b.entries)], b.entries, func(e pamEntry, text string) bool { return e.file == name && e.text == text }) {
			return i, true
		}
	}
	return 0, false
}

// stray are the entries besides the block that may not be there, and whether the
// block is there.
func (b pamBlock) stray(entries []pamEntry, name string) (stray []pamEntry, whole bool) {
	at, whole := b.find(entries, name)
	for i, e := range entries {
		switch {
		case whole && i >= at && i < at+len(b.entries):
		case e.harmless(), e.counts("preauth") && (!whole || i < at), e.counts("authsucc") && (!whole || i > at):
		default:
			stray = append(stray, e)
		}
	}
	return stray, whole
}

// harmless are modules that let nobody in and ask for nothing: where they must
// not fail, they can stand beside our block.
var harmless = []string{"pam_env.so", "pam_nologin.so", "pam_faildelay.so"}

// harmless reports whether an entry only denies, or only prepares.
func (e pamEntry) harmless() bool {
	kind, control, module, args := e.parts()
	return kind == "auth" && e.text[0] != '-' && mustSucceed(control) && slices.Contains(harmless, module) &&
		!slices.Contains(args, "successok") // pam_nologin's word for a success of its own
}

// mustSucceed reports whether a control means that the whole fails with the module.
func mustSucceed(control string) bool { return control == "required" || control == "requisite" }

// counts reports whether an entry is an administrator's own counter of failures in
// the part that can only deny: before our block the one that refuses an account
// that is locked, after it the one that forgets the failures of a user who was let
// in. The one that counts a failure is not: it would count each success too.
func (e pamEntry) counts(part string) bool {
	kind, control, module, args := e.parts()
	return kind == "auth" && e.text[0] != '-' && mustSucceed(control) && module == target.PAMTally && slices.Contains(args, part)
}

// A pamRole is what an entry is for in the service file itself.
type pamRole int

const (
	roleOther    pamRole = iota
	rolePassword         // the distribution's line that asks for a password
	roleGuide            // the module's line, as a manual guide has it
	roleOurs             // of our block, of an earlier version's, or one that was altered
	roleTally            // an administrator's line of pam_faillock
)

// role of an entry of a file that is the service file itself.
func (b pamBlock) role(e pamEntry, password string) pamRole {
	kind, control, module, args := e.parts()
	switch {
	case e.text == password:
		return rolePassword
	case kind != "auth" || e.text[0] == '-':
		return roleOther
	case slices.Contains(b.entries, e.text),
		module == target.PAMModule && slices.Contains(args, "user=root") && slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "secret="+target.PAMStateDir+"/") }):
		return roleOurs
	case module == target.PAMModule && (mustSucceed(control) || control[0] == '['):
		return roleGuide
	case module == target.PAMTally:
		return roleTally
	}
	return roleOther
}

// rewritePAM puts our block in the place of the line that asks for a password, of
// the one by which a manual guide has a code asked for instead, or of an earlier
// version of the block, and leaves every other entry as it is. Lines of
// pam_faillock go with the line that they stand around, unless they can only deny.
// The text is unchanged where the block is there already and nothing else
// authenticates. Anything else is an error, [ErrPAM].
func rewritePAM(text, name, password string, block pamBlock, entries []pamEntry) (string, error) {
	stray, whole := block.stray(entries, name)
	if whole && len(stray) == 0 {
		return text, nil
	}
	const remedy = "remove this line; the agent's lines must be the only ones that authenticate"
	var pass, guides, mine, tally []pamEntry
	for _, e := range entries {
		role := roleOther
		if e.file == name {
			role = block.role(e, password)
		}
		switch role {
		case rolePassword:
			pass = append(pass, e)
		case roleGuide:
			guides = append(guides, e)
		case roleOurs:
			mine = append(mine, e)
		case roleTally:
			tally = append(tally, e)
		default:
			if !e.harmless() {
				return "", &pamError{where: e.where(), what: fmt.Sprintf("%q", e.text), fix: remedy, foreign: true}
			}
		}
	}
	theirs := slices.Concat(pass, guides)
	switch {
	case len(mine) == 0 && len(theirs) == 0:
		return "", &pamError{where: name, what: fmt.Sprintf("the line %q is missing", password),
			fix: "put that line where the password is to be asked for; the bake replaces it"}
	case len(mine) == 0 && len(theirs) > 1:
		e := theirs[1]
		return "", &pamError{where: e.where(), what: fmt.Sprintf("%q: a second line that authenticates", e.text), fix: remedy, foreign: true}
	case len(mine) == 0 && len(guides) == 1 && len(tally) == 0:
		if _, control, _, _ := guides[0].parts(); !mustSucceed(control) {
			return "", &pamError{where: guides[0].where(), what: fmt.Sprintf("%q: the control must be required", guides[0].text), fix: "correct it", foreign: true}
		}
	}
	replaced := slices.Concat(mine, theirs)
	slices.SortFunc(replaced, func(a, b pamEntry) int { return a.line - b.line })
	at := replaced[0].line
	for _, e := range tally {
		// Beside a block of ours they are what is left of another version of it.
		keep := e.counts("preauth") && e.line < at || e.counts("authsucc") && e.line > replaced[len(replaced)-1].line
		if len(mine) > 0 || !keep {
			replaced = append(replaced, e)
		}
	}
	return replaceLines(text, at, block, replaced), nil
}

// replaceLines puts the block before line at, and removes the entries that it
// replaces and the comments of an earlier block.
func replaceLines(text string, at int, block pamBlock, replaced []pamEntry) string {
	var comments []string
	for line := range strings.Lines(block.text) {
		if strings.HasPrefix(line, "#") {
			comments = append(comments, line)
		}
	}
	var b strings.Builder
	n := 0
	for raw := range strings.Lines(text) {
		n++
		if n == at {
			b.WriteString(block.text)
		}
		gone := slices.ContainsFunc(replaced, func(e pamEntry) bool { return n >= e.line && n <= e.last }) || slices.Contains(comments, raw)
		if !gone {
			b.WriteString(raw)
		}
	}
	return b.String()
}
