// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
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
	again := fs.Bool("again", false, "bake with the policy that is installed, "+target.ImagePolicy)
	untested := fs.Bool("allow-untested-system", false, "bake RHEL, Rocky, Alma and Fedora too, on which nobody has tested this")
	return func(e env, args []string) error {
		if err := none(args); err != nil {
			return err
		}
		if (*file == "") != *again {
			return fmt.Errorf("%w: use one of --policy FILE and --again; usage: totp-agent bake --policy FILE | --again", errUsage)
		}
		var o bake.Options
		if !*again {
			text, err := readPolicy(*file)
			if err != nil {
				return err
			}
			if o.Policy, err = policy.Parse(policy.Image, *file, text); err != nil {
				return err
			}
		}
		t, err := e.open()
		if err != nil {
			return err
		}
		if *again {
			if o, err = bake.Again(t); err != nil {
				return err
			}
		}
		if o.Agent, err = os.Executable(); err != nil {
			return err
		}
		o.Log, o.AllowUntested = e.err, o.AllowUntested || *untested
		_, err = bake.Run(e, t, o)
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

// These end a check that found something; [exitStatus] tells them apart.
var (
	errFindings = errors.New("this system differs from what the bake set up; see the critical and degraded lines above")
	errCritical = errors.New("the SSH login is not safe, or all users are locked out")
)

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
			printFindings(e.out, findings)
			if judge(findings) == nil {
				fmt.Fprintln(e.out, "everything is as it was baked")
			}
			if c := t.Clock(); c.State == target.ClockUnknown {
				fmt.Fprintln(e.out, "clock:", c)
			}
		}
		return judge(findings)
	}
}

func printFindings(w io.Writer, findings []bake.Finding) {
	for _, f := range findings {
		fmt.Fprintf(w, "%s: %s: %s: %s; %s\n", f.Severity, f.ID, f.Path, f.What, f.Fix)
	}
}

// judge returns the error of a check. Warnings and notices are no error.
func judge(findings []bake.Finding) error {
	n := 0
	for _, f := range findings {
		if f.Severity == bake.Critical || f.Severity == bake.Degraded {
			n++
		}
	}
	switch bake.Worst(findings) {
	case bake.Critical:
		return fmt.Errorf("%d findings: %w: %w", n, errCritical, errFindings)
	case bake.Degraded:
		return fmt.Errorf("%d findings: %w", n, errFindings)
	}
	return nil
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
