// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// exposures are the most that systemd-analyze may find exposed of each service, on its
// scale from 0 to 10. A service that is not in the table may expose no more than the
// worst of them.
var exposures = map[string]float64{
	target.AgentService:   2.0,
	target.DeliverService: 1.5,
	target.SendService:    1.5,
	target.LoginsService:  1.5,
	target.HostKeyService: 1.0,
	target.ModuleService:  1.5,
	target.CleanService:   2.0,
}

const worstExposure = 2.0

// systemd judges the units of an image, by the version that they run under. That of
// Debian 11 cannot judge units that are not loaded.
func TestExposure(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		if r.Suite == "bullseye" {
			t.Skip("systemd 247 has no systemd-analyze security --offline")
		}
		root := imageOf(t, r, forAliceAndBob).root
		files, err := filepath.Glob(root.Path(target.SystemdUnitDir + "/totp-*.service"))
		if err != nil || len(files) < len(exposures) {
			t.Fatalf("units %q, %v", files, err)
		}
		overall := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
		for _, file := range files {
			unit := filepath.Base(file)
			out, err := root.Command(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", target.SystemdUnitDir+"/"+unit).CombinedOutput()
			found := overall.FindSubmatch(out)
			if found == nil {
				t.Fatalf("%s: %v\n%s", unit, err, out)
			}
			got, err := strconv.ParseFloat(string(found[1]), 64)
			if err != nil {
				t.Fatal(err)
			}
			most, ok := exposures[unit]
			if !ok {
				most = worstExposure
			}
			if got > most {
				t.Errorf("%s: %.1f, may be %.1f\n%s", unit, got, most, out)
			}
			t.Logf("%s: %.1f of %.1f", unit, got, most)
		}
	})
}
