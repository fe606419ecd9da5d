// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import "testing"

// What openssl passwd -6 says.
func TestSHA512Crypt(t *testing.T) {
	for _, c := range []struct{ password, salt, want string }{
		{"Hello world!", "saltstring", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"},
		{"a", "ab", "$6$ab$/PzCrRVMmcIPg399m0GjJEW7Is3nwj.HV3N4NLJLXwzwzPszJ55Jq.eFpjcqBciAH7lx4yAws1nleGIpiHDt91"},
		{"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789", "./ABCDEFGHIJKLMN", "$6$./ABCDEFGHIJKLMN$B/gDS5EKIEIUdy3KzonUctgC5zMx9Cwrz9EOHUhudye0FvAxub3LgYXFh7IgFhCCpaaS.yNx62ClkbIU9y8Ag0"},
	} {
		if got := sha512crypt(c.password, c.salt); got != c.want {
			t.Errorf("%q, %q: got %s, want %s", c.password, c.salt, got, c.want)
		}
	}
}
