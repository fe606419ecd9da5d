// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func sampleDB() userDB {
	return userDB{
		passwd:  "root:x:0:0:root:/root:/bin/bash\ncarol:x:1000:59999:Carol,,,:/home/carol:/usr/sbin/nologin\n+::::::",
		shadow:  "root:!:19000:0:99999:7:::\ncarol:$6$x$y:19000:0:99999:7:::\n",
		group:   "root:x:0:\nops:x:59997:carol\n",
		gshadow: "root:*::\nops:!::carol\n",
	}
}

func TestAddAccounts(t *testing.T) {
	db := sampleDB()
	ids, err := db.freeIDs(3)
	if err != nil || !slices.Equal(ids, []int{59998, 59996, 59995}) {
		t.Fatalf("ids %v, %v", ids, err)
	}
	a, err := db.add(account{name: "totp-test-a", home: "/h/a", password: "*", groups: []string{"ops", "new"}}, 59996, 59995, "/bin/sh")
	if err != nil || a.uid != 59996 || a.gid != 59996 {
		t.Errorf("%+v, %v", a, err)
	}
	// One that is there keeps its numbers and its shadow, and gets a home and a shell.
	c, err := db.add(account{name: "carol", home: "/h/carol", password: "*"}, 59994, 59993, "/bin/sh")
	if err != nil || c.uid != 1000 || c.gid != 59999 {
		t.Errorf("%+v, %v", c, err)
	}
	want := userDB{
		passwd: "root:x:0:0:root:/root:/bin/bash\ncarol:x:1000:59999:Carol,,,:/h/carol:/bin/sh\n+::::::\n" +
			"totp-test-a:x:59996:59996:self-test:/h/a:/bin/sh\n",
		shadow:  "root:!:19000:0:99999:7:::\ncarol:$6$x$y:19000:0:99999:7:::\ntotp-test-a:*:::::::\n",
		group:   "root:x:0:\nops:x:59997:carol,totp-test-a\ntotp-test-a:x:59996:\nnew:x:59995:totp-test-a\n",
		gshadow: "root:*::\nops:!::carol,totp-test-a\ntotp-test-a:*::\nnew:*::totp-test-a\n",
	}
	if db != want {
		t.Errorf("got %+v\nwant %+v", db, want)
	}
	if _, err := db.add(account{name: "+", home: "/h"}, 1, 2, "/bin/sh"); err == nil {
		t.Error("an entry without numbers is taken")
	}
}

func TestPrefix(t *testing.T) {
	db := sampleDB()
	for _, c := range []struct{ passwd, group, want string }{
		{"", "", "totp-test-"},
		{"totp-test-code:x:1:1::/:/bin/sh\n", "", "totp-test1-"},
		{"totp-test-code:x:1:1::/:/bin/sh\n", "totp-test1-x:x:1:\n", "totp-test2-"},
	} {
		db.passwd, db.group = c.passwd, c.group
		if got, err := db.prefix(); err != nil || got != c.want {
			t.Errorf("%q, %v, want %q", got, err, c.want)
		}
	}
	var all strings.Builder
	for i := range 100 {
		fmt.Fprintf(&all, "totp-test%d-:x:1:1::/:\n", i)
	}
	db.passwd = all.String() + "totp-test-:x:1:1::/:\n"
	if _, err := db.prefix(); !errors.Is(err, errAccounts) {
		t.Errorf("got %v", err)
	}
	if _, err := db.freeIDs(firstID); !errors.Is(err, errAccounts) {
		t.Errorf("got %v", err)
	}
}

// FuzzSet: an entry that was set is there, and all others are as they were.
func FuzzSet(f *testing.F) {
	f.Add(sampleDB().passwd, "carol", "x")
	f.Add("a:b\r\n\n#c", "a", "")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		if name == "" || strings.ContainsAny(name+value, ":\r\n") {
			t.Skip()
		}
		got := set(text, name, value)
		if entry := fields(got, name); !slices.Equal(entry, []string{name, value}) {
			t.Fatalf("entry %q of %q", entry, got)
		}
		kept := func(s string) (lines []string) {
			for line := range strings.Lines(s) {
				if n, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); n != name {
					lines = append(lines, strings.TrimRight(line, "\n"))
				}
			}
			return lines
		}
		if a, b := kept(text), kept(got); !slices.Equal(a, b) {
			t.Errorf("%q became %q", a, b)
		}
	})
}
