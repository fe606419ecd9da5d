// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/clean"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// The verbs of an image.

// maxPolicy is the size of a policy file that is read at all.
const maxPolicy = 64 << 10

func bakeVerb(fs *flag.FlagSet) func(env, []string) error {
	file := fs.String("policy", "", "the image's policy, a YAML `FILE` on this system")
	untested := fs.Bool("allow-untested-system", false, "bake RHEL, Rocky, Alma and Fedora too, on which nobody has tested this")
	return func(e env, args []string) error {
		if err := none(args); err != nil {
			return err
		}
		if *file == "" {
			return fmt.Errorf("%w: --policy FILE is missing", errUsage)
		}
		text, err := readPolicy(*file)
		if err != nil {
			return err
		}
		p, err := policy.Parse(policy.Image, *file, text)
		if err != nil {
			return err
		}
		t, err := e.open()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		_, err = bake.Run(e, t, bake.Options{Policy: p, Agent: self, Log: e.err, AllowUntested: *untested})
		return err
	}
}

func readPolicy(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe might wait for ever, and a device never end
		return nil, fmt.Errorf("%s: %w; name a file", file, target.ErrNotRegular)
	}
	if info.Size() > maxPolicy {
		return nil, fmt.Errorf("%s: larger than %d bytes; that is no policy", file, maxPolicy)
	}
	return os.ReadFile(file)
}

// errFindings ends a check that found something.
var errFindings = errors.New("this image does not hold what its bake promised")

func checkVerb(fs *flag.FlagSet) func(env, []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	repair := fs.Bool("repair", false, "repair the files that an SSH login depends on; print only changes and what is left")
	settle := fs.Duration("settle", 0, "with --repair, watch these files until they have not changed for `DURATION`")
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		if *settle != 0 && !*repair {
			return fmt.Errorf("%w: --settle needs --repair", errUsage)
		}
		if *repair {
			return e.repairUntil(t, *settle)
		}
		findings, err := bake.Check(e, t)
		if err != nil {
			return err
		}
		if *asJSON {
			enc := json.NewEncoder(e.out)
			enc.SetIndent("", "  ")
			if findings == nil {
				findings = []bake.Finding{}
			}
			if err := enc.Encode(findings); err != nil {
				return err
			}
		} else {
			for _, f := range findings {
				fmt.Fprintf(e.out, "%s: %s: %s; %s\n", f.ID, f.Path, f.What, f.Fix)
			}
			if wrong(findings) == 0 {
				fmt.Fprintln(e.out, "everything is as it was baked")
			}
			if c := t.Clock(); c.State == target.ClockUnknown {
				fmt.Fprintln(e.out, "clock:", c)
			}
		}
		if n := wrong(findings); n > 0 {
			return fmt.Errorf("%d findings: %w", n, errFindings)
		}
		return nil
	}
}

// wrong counts the findings that break what the bake promised.
func wrong(findings []bake.Finding) int {
	n := 0
	for _, f := range findings {
		if f.Severity != bake.Notice && f.Severity != bake.Warning {
			n++
		}
	}
	return n
}

func cleanVerb(fs *flag.FlagSet) func(env, []string) error {
	report := fs.Bool("report", false, "print the build report with what was removed and what is left, as JSON")
	look := fs.Bool("check", false, "remove nothing, and tell what an image must not hold")
	finish := fs.String("finish", "", "remove what was deferred, `WHEN` being shutdown or boot; for the units that do it")
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		switch {
		case *finish != "" && *finish != "shutdown" && *finish != "boot":
			return fmt.Errorf("%w: --finish %q: use shutdown or boot", errUsage, *finish)
		case *finish != "":
			return clean.Finish(e, t, e.err, *finish == "boot")
		case *look:
			leaks, err := clean.Leaks(t)
			return errors.Join(err, clean.Judge(leaks))
		}
		r, err := clean.Run(e, t, clean.Options{Login: os.Getenv("SUDO_USER"), Log: e.err})
		if r == nil || !*report {
			return err
		}
		return errors.Join(err, e.report(t, r))
	}
}

// report adds what clean did to the build report, and prints it.
func (e env) report(t *target.Target, c *clean.Report) error {
	r, err := bake.ReadReport(t)
	if err != nil {
		return err
	}
	r.Clean = c
	if err := r.Write(t); err != nil {
		return err
	}
	b, err := t.ReadFile(target.Report)
	if err != nil {
		return err
	}
	_, err = e.out.Write(b)
	return err
}
