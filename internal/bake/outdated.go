// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// asBaked reports whether a file is as the last bake wrote it, or is missing and was
// not one of its files. err is the error of reading it.
func (c *checker) asBaked(name string, data []byte, err error) bool {
	if c.baked == nil {
		return false
	}
	i := slices.IndexFunc(c.baked.Files, func(f ReportFile) bool { return f.Path == name })
	switch {
	case i < 0:
		return errors.Is(err, fs.ErrNotExist)
	case err != nil:
		return false
	}
	sum, err := hash(bytes.NewReader(data))
	return err == nil && sum == c.baked.Files[i].SHA256
}

// newLink reports whether the last bake did not make a link.
func (c *checker) newLink(l link) bool {
	return c.baked != nil && c.baked.Links[l.path] == "" && !c.t.Exists(l.path)
}

// outdated reports a system that is another one than that of the bake, after an
// upgrade say: one finding for all files that it needs otherwise. What sshd makes of
// those that are there, sshd is asked.
func (c *checker) outdated() {
	r := c.baked
	if r == nil {
		return
	}
	upgraded := r.System.ID != c.facts.id || r.System.VersionID != c.facts.versionID
	if !upgraded && !c.stale {
		return
	}
	var was, is []string
	compare := func(before, now string) {
		if before != now {
			was, is = append(was, before), append(is, now)
		}
	}
	compare(r.System.Name, c.facts.name)
	compare("OpenSSH "+r.OpenSSH, "OpenSSH "+c.facts.openSSH.String())
	compare("totp-agent "+r.Agent, "totp-agent "+version.String())
	what := fmt.Sprintf("written for %s; this is %s", strings.Join(was, ", "), strings.Join(is, ", "))
	if len(was) == 0 {
		what = "the policy or the accounts have changed since the bake"
	}
	fix := bakeAgain
	if c.facts.onRequest && r.System.ID != c.facts.id {
		fix += " --allow-untested-system"
	}
	c.add(Degraded, "bake-outdated", target.Report, what, fix)
}
