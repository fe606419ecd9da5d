// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// maxPage is how long a card may take to the screen after the paste.
const maxPage = 200 * time.Millisecond

// printPage times totpctl's page in a headless Chromium, by the test that uses it as
// an owner does.
func printPage() error {
	fmt.Printf("\n%-28s %12s %12s %12s\n", "totpctl page", "CPU", "wall", "limit")
	if _, err := exec.LookPath("chromium"); err != nil {
		fmt.Printf("%-28s %12s\n", "card after the paste", "not measured: chromium is not installed")
		return nil
	}
	out, err := exec.Command("go", "test", "-count=1", "-v", "-run=^TestPage$/^speed$", "./acctest/browser").CombinedOutput()
	if err != nil {
		return fmt.Errorf("acctest/browser: %w\n%s", err, out)
	}
	said := regexp.MustCompile(`after the paste: ([0-9]+ms), of which the page computes ([0-9]+ms)`).FindStringSubmatch(strings.ReplaceAll(string(out), " ms", "ms"))
	if said == nil {
		return fmt.Errorf("acctest/browser has not said how long the card took:\n%s", out)
	}
	took, err := time.ParseDuration(said[1])
	if err != nil {
		return err
	}
	fmt.Printf("%-28s %12s %12s %12s %s\n", "card after the paste", said[2], took, maxPage, met(took <= maxPage))
	return nil
}

// met says whether what was measured keeps to the limit.
func met(ok bool) string {
	if ok {
		return "met"
	}
	return "NOT MET"
}
