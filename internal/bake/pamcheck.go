// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// tallyMode keeps users out of the directory of their counters, which pam_faillock makes
// each user's own. One who fills the file system with it ends the counting for all, and one
// who locks it keeps others from resetting it.
const tallyMode = 0o700

// tallyOpen reports whether other users can enter that directory.
func tallyOpen(fi fs.FileInfo) bool { return !owned(fi) || fi.Mode().Perm() != tallyMode }

// repairIt is the remedy for what [Repair] puts right.
const repairIt = "run: totp-agent check --repair"

const orRepair = ", or " + repairIt

// afterRepair is the remedy of a finding that a repair has left: another repair helps only
// once its cause is gone.
func afterRepair(fix string) string {
	switch cause, ok := strings.CutSuffix(fix, orRepair); {
	case ok:
		fix = cause
	case fix == repairIt:
		fix = "correct it"
	}
	return fix + ", then " + repairIt
}

// pam looks at what authenticates a login.
func (c *checker) pam() {
	for module, pkg := range map[string]string{target.PAMModule: c.facts.pamPackage, target.PAMTally: "Linux-PAM (with dpkg: libpam-modules)"} {
		if c.facts.moduleFile(c.t, module) == "" {
			c.add(Critical, "pam-module", path.Join(target.PAMModuleDirs[c.facts.arch][0], module), "is missing, so that no user can log in", "install "+pkg)
		}
	}
	if c.t.Live() {
		fi, err := c.t.Lstat(target.PAMTallyDir)
		switch {
		case err != nil || !fi.IsDir():
			c.add(Degraded, "pam-tally-dir", target.PAMTallyDir, "is missing, so parallel tries are not counted", repairIt)
		case tallyOpen(fi):
			c.add(Degraded, "pam-tally-dir", target.PAMTallyDir, "other users can enter it, and any of them could end the counting of tries", repairIt)
		}
	}
	c.pamService()
	c.pamCopy()
}

// CheckLogin looks only at what authenticates a login, and whether a file of ours that
// decides about it was replaced. It asks no other program.
func CheckLogin(t *target.Target) ([]Finding, error) {
	f, err := repairFacts(t)
	if !f.baked {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := &checker{t: t, facts: f}
	c.pam()
	names, _ := replaced(t)
	for _, name := range names {
		c.add(Critical, "file-altered", name, "is not as the bake wrote it", repairIt)
	}
	return c.findings, nil
}

// pamService looks at the service file: that it is whole, and that our block is in
// it with nothing besides that could let a user in, or lock all users out.
func (c *checker) pamService() {
	fi, err := c.t.Lstat(target.PAMService)
	if err == nil && !fi.Mode().IsRegular() {
		c.add(Critical, "pam-service", target.PAMService, "is a "+kind(fi)+", want a regular file", repairIt)
		return
	}
	b, err := c.t.ReadFile(target.PAMService)
	if err != nil {
		c.add(Critical, "pam-service", target.PAMService, err.Error(), repairIt)
		return
	}
	block, err := c.facts.block(c.t)
	if err != nil {
		c.add(Critical, "pam-block", target.PAMService, err.Error(), bakeAgain)
		return
	}
	entries, err := authEntries(c.t.ReadFile, target.PAMService, c.facts.pamPassword)
	if err != nil {
		c.pamError("pam-service", err)
		return
	}
	stray, whole := block.stray(entries, target.PAMService)
	if !whole {
		c.add(Critical, "pam-block", target.PAMService, fmt.Sprintf("does not have the %d lines that ask for the code, together and in their order", len(block.entries)), repairIt)
	}
	for _, e := range stray {
		c.strayEntry(e, block, whole)
	}
	if err := soundPAM(string(b)); err != nil {
		c.pamError("pam-damaged", err)
	} else if err := c.facts.cutShort(c.t, string(b)); err != nil && whole {
		c.pamError("pam-damaged", err)
	}
}

func (c *checker) strayEntry(e pamEntry, block pamBlock, whole bool) {
	_, _, module, args := e.parts()
	const fix = "remove it" + orRepair
	switch {
	case slices.Contains(block.entries, e.text) && !whole:
		// reported as the whole
	case slices.Contains(args, "nullok"):
		c.add(Critical, "pam-nullok", e.where(), fmt.Sprintf("%q accepts users without a secret", e.text), fix)
	case e.module() == "pam_permit.so":
		c.add(Critical, "pam-permit", e.where(), fmt.Sprintf("%q accepts all users", e.text), fix)
	case module == target.PAMTally:
		c.add(Critical, "pam-tally", e.where(), fmt.Sprintf("%q counts a success as a failure, or accepts users without a code; only a required preauth line before the agent's lines and a required authsucc line after them are safe", e.text), fix)
	case e.module() == target.PAMModule:
		c.add(Critical, "pam-line", e.where(), fmt.Sprintf("%q asks for a code besides the agent's lines", e.text), fix)
	default:
		c.add(Critical, "pam-extra", e.where(), fmt.Sprintf("%q authenticates besides the agent's lines", e.text), fix)
	}
}

func (c *checker) pamError(id string, err error) {
	var p *pamError
	if errors.As(err, &p) {
		fix := repairIt
		if p.fix != repairIt {
			fix = p.fix + orRepair
		}
		c.add(Critical, id, p.where, p.what, fix)
		return
	}
	c.add(Critical, id, target.PAMService, err.Error(), repairIt)
}

// pamCopy looks at the copy, which is what Linux-PAM reads where the service file is
// missing, and what a repair is made from.
func (c *checker) pamCopy() {
	var p *pamError
	_, err := c.facts.pamKept(c.t)
	if elsewhere := errors.As(err, &p) && p.foreign && !strings.HasPrefix(p.where, target.PAMService+":"); elsewhere {
		return // in a file that the service file includes too
	}
	if err != nil {
		c.add(Degraded, "pam-copy", target.PAMCopy, err.Error(), repairIt)
	}
}

// pamState looks at the state files: the module refuses those that others
// could read, and their users with them.
func (c *checker) pamState() {
	entries, err := c.t.ReadDir(target.PAMStateDir)
	if err != nil {
		return // reported with the directories
	}
	for _, e := range entries {
		if target.ValidUserName(e.Name()) != nil {
			continue // the module's temporary files
		}
		c.entry(Critical, path.Join(target.PAMStateDir, e.Name()), false, 0o400, "run: totp-agent reset "+e.Name())
	}
}
