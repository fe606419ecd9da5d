// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"os"
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

// systemd's own judgement of the units, by the version that they run under. That of
// Debian 11 has none for units on a disk.
func TestExposure(t *testing.T) {
	t.Parallel()
	for _, r := range []rootfs.Recipe{rootfs.Debian12, rootfs.Debian13} {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, r)
			files, err := filepath.Glob(m.Path(target.SystemdUnitDir + "/totp-*.service"))
			if err != nil || len(files) < len(exposures) {
				t.Fatalf("units %q, %v", files, err)
			}
			overall := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
			for _, file := range files {
				unit := filepath.Base(file)
				// A link, of a unit that is masked say, is no unit of ours.
				if fi, err := os.Lstat(file); err != nil || !fi.Mode().IsRegular() {
					continue
				}
				out, err := m.Run(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", target.SystemdUnitDir+"/"+unit)
				found := overall.FindStringSubmatch(out)
				if found == nil {
					t.Fatalf("%s: %v\n%s", unit, err, out)
				}
				got, err := strconv.ParseFloat(found[1], 64)
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
}
