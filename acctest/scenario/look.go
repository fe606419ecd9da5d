// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A Sight is what root sees on an instance.
type Sight struct {
	Status   enroll.Status
	Sums     map[string]string // as those of [Instance.Sums]
	HostKeys []string          // as cards have them
	Text     string            // all of it: "UNIT: RESULT" and "cloud-init: STATUS" are lines of it
}

// LookProgram is a script on the instance that says what is in a [Sight].
const LookProgram = "/root/look"

const lookScript = `systemctl start totp-deliver.service # and waits for its end
timeout 240 cloud-init status --wait >/dev/null || true
totp-agent status --json
for unit in totp-module totp-agent totp-deliver; do
	echo "$unit: $(systemctl show --property=Result --value $unit.service)"
done
echo "cloud-init: $(cloud-init status | tr "\n" " ")$(tr -d "\n" </run/cloud-init/result.json)"
cat /etc/ssh/ssh_host_*_key.pub
find ` + stateDir + ` ` + target.Identity + ` -type f -exec sha256sum {} +
journalctl --merge --no-pager --output=cat --unit=totp-agent.service _BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id)
`

// seenFile is where the script's words are kept, for [Instance.Seen].
const seenFile = "/root/seen"

// Look has root look at the instance on the console, for [Instance.Seen]: a serial
// line doubles characters where the machine is slow, and a disk does not.
func (i *Instance) Look(ctx context.Context, password string) error {
	_, err := i.Machine.LogIn(ctx, password, "sh "+LookProgram+" >"+seenFile)
	return err
}

// Seen returns what the last [Instance.Look] has seen, from the disk of an instance
// that is not running.
func (i *Instance) Seen(ctx context.Context) (s Sight, err error) {
	err = i.ReadDisk(ctx, func(d *vm.Disk) error {
		text, err := d.ReadFile(ctx, seenFile)
		if err != nil {
			return err
		}
		s, err = ReadSight(string(text))
		return err
	})
	return s, err
}

var sumLine = regexp.MustCompile(`(?m)^([0-9a-f]{64})  (/\S+)$`)

// ReadSight reads what [LookProgram] has said.
func ReadSight(text string) (Sight, error) {
	s := Sight{Text: text, Sums: map[string]string{}}
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&s.Status); err != nil {
		return s, fmt.Errorf("%s: %w: %q", LookProgram, err, text)
	}
	for _, line := range sumLine.FindAllStringSubmatch(text, -1) {
		s.Sums[line[2]] = line[1]
	}
	var err error
	s.HostKeys, err = hostKeys(text)
	return s, err
}
