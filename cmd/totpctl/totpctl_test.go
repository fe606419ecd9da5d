// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// raceOptions keep a program that was built with -race from sleeping for a second
// at its exit.
const raceOptions = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	os.Setenv("GORACE", raceOptions)
	testscript.Main(m, map[string]func(){"totpctl": main})
}

func TestScript(t *testing.T) {
	// The scripts pass over the tools that are missing.
	if os.Getenv("CI") == "true" {
		for _, tool := range []string{"age-keygen", "ssh-keygen", "zbarimg"} {
			needs(t, tool)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               isolate,
		Cmds:                scriptCommands,
	})
}

// isolate keeps a script away from the home of whoever runs the tests.
func isolate(env *testscript.Env) error {
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
	env.Setenv("GORACE", raceOptions)
	env.Setenv("AppData", env.WorkDir+"/config")
	env.Setenv("AGE", "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z") // nobody's
	large := "#cloud-config\nbootcmd: [\"# " + strings.Repeat("x", 17<<10) + "\"]\n"
	return os.WriteFile(env.WorkDir+"/large.yaml", []byte(large), 0o600)
}
