// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func TestReadSight(t *testing.T) {
	people := testPeople(t)
	sum := strings.Repeat("0a", 32)
	text := "{\n  \"instance_id\": \"i-1\"\n}\ntotp-agent: success\n" + people[0].Key.Public + "\n" + sum + "  " + target.Identity + "\nenroll: nothing\n"
	s, err := ReadSight(text)
	if err != nil || s.Status.InstanceID != "i-1" || len(s.Sums) != 1 || s.Sums[target.Identity] != sum || len(s.HostKeys) != 1 || s.Text != text {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "totp-agent: the agent has not run in this boot\n", "{}\nno host key\n"} {
		if _, err := ReadSight(bad); err == nil {
			t.Errorf("%q is taken for one", bad)
		}
	}
}

// The other forms of user-data: with somebody who has no account, and with no policy.
func TestUserDataForms(t *testing.T) {
	people := testPeople(t)
	data, err := userData(people, make([]byte, 16), byFileWithAbsent)
	if err != nil {
		t.Fatal(err)
	}
	c, p := instancePolicy(t, []byte(data))
	if len(c.Users) != 2 || len(p.Users) != 2 || p.Users[1].Name != Absent || p.Users[1].Recipients[0] != people[0].Recipient {
		t.Errorf("accounts %+v, enrolled %+v", c.Users, p.Users)
	}
	data, err = userData(people, make([]byte, 16), byNobody)
	if err != nil || strings.Contains(data, "age1") || strings.Contains(data, "totp") || !strings.Contains(data, "carol") {
		t.Errorf("%v\n%s", err, data)
	}
}
