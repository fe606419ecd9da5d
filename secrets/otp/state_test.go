// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var mark = otp.Mark{ID: "k5ccmyhxhx4hyt4ssw3zfkzg6u", Identity: "0123456789abcdef.-.fedcba9876543210", Generation: 3}

func fresh() otp.State {
	return otp.State{
		Secret: rfcSecret, RateLimit: otp.Standard, Window: 3, BackupCodes: []string{"10000000", "23456789", "99999999"}, Mark: mark,
	}
}

// plain is a State that cmp can look into.
func plain(s otp.State) any {
	type open otp.State
	return open(s)
}

func TestFormat(t *testing.T) {
	strict := fresh()
	strict.RateLimit = otp.Strict
	used := fresh()
	used.Tries, used.Steps, used.Used = []int64{1790000000, 1790000001}, []int64{59666666}, true
	used.BackupCodes, used.Issued = used.BackupCodes[:2], 3
	used.Rest = []string{`" TIME_SKEW 1`, `" NOTE of the owner`}
	for name, s := range map[string]otp.State{
		"standard": fresh(),
		"strict":   strict,
		"used":     used,
		"least":    {Secret: rfcSecret},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := s.Format()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".state")
			if *update {
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(b)); diff != "" {
				t.Errorf("%s (-golden +got):\n%s", file, diff)
			}
			got, err := otp.ParseState(b)
			if err != nil {
				t.Fatal(err)
			}
			if name == "standard" || name == "strict" {
				s.Issued = 3
			}
			if diff := cmp.Diff(plain(s), plain(got)); diff != "" {
				t.Errorf("ParseState (-written +read):\n%s", diff)
			}
		})
	}
}

func TestFormatErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*otp.State)
		err   error
	}{
		"no secret":            {func(s *otp.State) { s.Secret = "" }, otp.ErrSecret},
		"padded secret":        {func(s *otp.State) { s.Secret = "GEZDGNBVGY======" }, otp.ErrSecret},
		"secret of two lines":  {func(s *otp.State) { s.Secret += "\n12345678" }, otp.ErrSecret},
		"101 attempts":         {func(s *otp.State) { s.RateLimit.Attempts = 101 }, otp.ErrRateLimit},
		"no attempts":          {func(s *otp.State) { s.RateLimit.Attempts = 0 }, otp.ErrRateLimit},
		"3601 seconds":         {func(s *otp.State) { s.RateLimit.Seconds = 3601 }, otp.ErrRateLimit},
		"window of 101":        {func(s *otp.State) { s.Window = 101 }, otp.ErrWindow},
		"window of -1":         {func(s *otp.State) { s.Window = -1 }, otp.ErrWindow},
		"short id":             {func(s *otp.State) { s.Mark.ID = "k5cc" }, otp.ErrMark},
		"path as id":           {func(s *otp.State) { s.Mark.ID = "../../../../../../../../tmp" }, otp.ErrMark},
		"no identity":          {func(s *otp.State) { s.Mark.Identity = "" }, otp.ErrMark},
		"identity of words":    {func(s *otp.State) { s.Mark.Identity = "a b" }, otp.ErrMark},
		"identity with line":   {func(s *otp.State) { s.Mark.Identity = "a\nb" }, otp.ErrMark},
		"account of words":     {func(s *otp.State) { s.Mark.Account = "a b" }, otp.ErrMark},
		"account with line":    {func(s *otp.State) { s.Mark.Account = "a\nb" }, otp.ErrMark},
		"account, long":        {func(s *otp.State) { s.Mark.Account = strings.Repeat("a", 201) }, otp.ErrMark},
		"generation 0":         {func(s *otp.State) { s.Mark.Generation = 0 }, otp.ErrMark},
		"rest: no option":      {func(s *otp.State) { s.Rest = []string{"12345678"} }, otp.ErrOption},
		"rest: two lines":      {func(s *otp.State) { s.Rest = []string{"\" A\n12345678"} }, otp.ErrOption},
		"rest: ours":           {func(s *otp.State) { s.Rest = []string{`" TOTP_AGENT id=x`} }, otp.ErrOption},
		"rest: a field":        {func(s *otp.State) { s.Rest = []string{`" RATE_LIMIT 100 1`} }, otp.ErrOption},
		"code with leading 0":  {func(s *otp.State) { s.BackupCodes[1] = "01234567" }, otp.ErrCode},
		"code of 9 digits":     {func(s *otp.State) { s.BackupCodes[1] = "123456789" }, otp.ErrCode},
		"code with sign":       {func(s *otp.State) { s.BackupCodes[1] = "+1234567" }, otp.ErrCode},
		"code with line":       {func(s *otp.State) { s.BackupCodes[1] = "1234567\n" }, otp.ErrCode},
		"code twice":           {func(s *otp.State) { s.BackupCodes[1] = s.BackupCodes[0] }, otp.ErrCode},
		"more than the module": {func(s *otp.State) { s.Rest = []string{`" ` + strings.Repeat("x", otp.MaxStateSize)} }, otp.ErrTooLarge},
	} {
		s := fresh()
		tt.spoil(&s)
		_, err := s.Format()
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v; want %v", name, err, tt.err)
		}
		if err != nil {
			shown(t, name, err.Error())
		}
	}
}

func TestParseState(t *testing.T) {
	const head = rfcSecret + "\n\" TOTP_AUTH\n"
	base := otp.State{Secret: rfcSecret}
	with := func(f func(*otp.State)) otp.State {
		s := base
		f(&s)
		return s
	}
	for name, tt := range map[string]struct {
		text string
		want otp.State
		err  error
	}{
		"least":      {text: head, want: base},
		"no newline": {text: strings.TrimSuffix(head, "\n"), want: base},
		"CRLF": {text: rfcSecret + "\r\n\" WINDOW_SIZE 5\r\n\" TOTP_AUTH\r\n12345678\r\n", want: with(func(s *otp.State) {
			s.Window, s.BackupCodes = 5, []string{"12345678"}
		})},
		"secret as people type it":   {text: strings.ToLower("GEZD GNBV-GY3T\tQOJQ") + " GEZDGNBVGY3TQOJQ\n\" TOTP_AUTH", want: base},
		"secret with mistyped 0 1 8": {text: "0A1A8A\n\" TOTP_AUTH", want: otp.State{Secret: "OALABA"}},
		"secret with padding":        {text: "GEZDGNBVGY======\n\" TOTP_AUTH", err: otp.ErrSecret},
		"secret of one character":    {text: "G\n\" TOTP_AUTH", err: otp.ErrSecret},
		"no secret":                  {text: "\" TOTP_AUTH\n", err: otp.ErrSecret},
		"empty":                      {text: "", err: otp.ErrTooLarge},
		"65536 bytes":                {text: head + strings.Repeat("\n", otp.MaxStateSize-len(head)), want: base},
		"65537 bytes":                {text: head + strings.Repeat("\n", otp.MaxStateSize-len(head)+1), err: otp.ErrTooLarge},
		"NUL":                        {text: head + "\x00", err: otp.ErrNUL},
		"no TOTP_AUTH":               {text: rfcSecret + "\n12345678\n", err: otp.ErrNotTOTP},
		"TOTP_AUTH as the module finds it": {text: rfcSecret + "\n\" X \" TOTP_AUTH\n", want: with(func(s *otp.State) {
			s.Rest = []string{`" X " TOTP_AUTH`}
		})},
		"counter": {text: rfcSecret + "\n\" HOTP_COUNTER 1\n", want: with(func(s *otp.State) {
			s.Rest = []string{`" HOTP_COUNTER 1`}
		})},
		"counter not begun": {text: rfcSecret + "\n\" HOTP_COUNTER 0\n", err: otp.ErrNotTOTP},
		"rate limit":        {text: head + "\" RATE_LIMIT 3 30\n", want: with(func(s *otp.State) { s.RateLimit = otp.Standard })},
		"rate limit with times": {text: head + "\" RATE_LIMIT 3 30 1790000000 1790000001\n", want: with(func(s *otp.State) {
			s.RateLimit, s.Tries = otp.Standard, []int64{1790000000, 1790000001}
		})},
		"rate limit, tabs":         {text: head + "\" RATE_LIMIT\t5\t 300\n", want: with(func(s *otp.State) { s.RateLimit = otp.Strict })},
		"rate limit at its limits": {text: head + "\" RATE_LIMIT 100 3600\n", want: with(func(s *otp.State) { s.RateLimit = otp.RateLimit{Attempts: 100, Seconds: 3600} })},
		"rate limit 101":           {text: head + "\" RATE_LIMIT 101 30\n", err: otp.ErrRateLimit},
		"rate limit 3601":          {text: head + "\" RATE_LIMIT 3 3601\n", err: otp.ErrRateLimit},
		"rate limit 0":             {text: head + "\" RATE_LIMIT 0 30\n", err: otp.ErrRateLimit},
		"rate limit of one number": {text: head + "\" RATE_LIMIT 3\n", err: otp.ErrRateLimit},
		"rate limit, blank at end": {text: head + "\" RATE_LIMIT 3 30 \n", err: otp.ErrRateLimit},
		"rate limit of words":      {text: head + "\" RATE_LIMIT 3 30 x\n", err: otp.ErrRateLimit},
		"rate limit, empty":        {text: head + "\" RATE_LIMIT\n", err: otp.ErrRateLimit},
		"window with more":         {text: head + "\" WINDOW_SIZE 17 x\n", want: with(func(s *otp.State) { s.Window = 17 })},
		"window 0":                 {text: head + "\" WINDOW_SIZE 0\n", err: otp.ErrWindow},
		"window 101":               {text: head + "\" WINDOW_SIZE 101\n", err: otp.ErrWindow},
		"window 3x":                {text: head + "\" WINDOW_SIZE 3x\n", err: otp.ErrWindow},
		"window, empty":            {text: head + "\" WINDOW_SIZE\n", err: otp.ErrWindow},
		"reuse":                    {text: head + "\" DISALLOW_REUSE\n", want: base},
		"reuse with steps": {text: head + "\" DISALLOW_REUSE 59666666 59666667 \n", want: with(func(s *otp.State) {
			s.Steps, s.Used = []int64{59666666, 59666667}, true
		})},
		"reuse of words": {text: head + "\" DISALLOW_REUSE 1x\n", err: otp.ErrReuse},
		"unknown options": {text: head + "\" STEP_SIZE 30\n\"no option\n\" LAST0 192.0.2.1 1790000000\n", want: with(func(s *otp.State) {
			s.Rest = []string{`" STEP_SIZE 30`, `"no option`, `" LAST0 192.0.2.1 1790000000`}
		})},
		"name that begins alike": {text: head + "\" WINDOW_SIZES 0\n", want: with(func(s *otp.State) { s.Rest = []string{`" WINDOW_SIZES 0`} })},
		"option twice":           {text: head + "\" WINDOW_SIZE 5\n\" WINDOW_SIZE 0\n", want: with(func(s *otp.State) { s.Window = 5 })},
		"codes among options": {text: rfcSecret + "\n12345678\n\" TOTP_AUTH\n23456789\n", want: with(func(s *otp.State) {
			s.BackupCodes = []string{"12345678", "23456789"}
		})},
		"blank lines, sign and leading zeros": {text: head + "\n  \n 12345678\n\n+23456789\n034567890\n", want: with(func(s *otp.State) {
			s.BackupCodes = []string{"12345678", "23456789", "34567890"}
		})},
		"code that ends the list": {text: head + "12345678\n01234567\n23456789\n\" WINDOW_SIZE 5\n", want: with(func(s *otp.State) {
			s.BackupCodes, s.Window = []string{"12345678"}, 5
		})},
		"blank within a code":    {text: head + "123 45678\n23456789\n", want: base},
		"blank behind a code":    {text: head + "12345678 \n23456789\n", want: base},
		"code of 9 digits":       {text: head + "123456789\n", want: base},
		"code of too many":       {text: head + "99999999999999999999999\n", want: base},
		"comment ends the list":  {text: head + "# backup\n12345678\n", want: base},
		"code twice counts once": {text: head + "12345678\n12345678\n", want: with(func(s *otp.State) { s.BackupCodes = []string{"12345678"} })},
		"mark": {text: head + "\" TOTP_AGENT id=" + mark.ID + " identity=" + mark.Identity + " gen=3\n", want: with(func(s *otp.State) {
			s.Mark = mark
		})},
		"mark with an account": {text: head + "\" TOTP_AGENT id=" + mark.ID + " identity=" + mark.Identity + " gen=3 codes=0 account=1000.local.f.h\n", want: with(func(s *otp.State) {
			s.Mark = mark
			s.Mark.Account = "1000.local.f.h"
		})},
		"mark with words of later versions": {text: head + "\" TOTP_AGENT v=2 id=" + mark.ID + " identity=" + mark.Identity + " gen=3 codes=1 x\n12345678\n", want: with(func(s *otp.State) {
			s.Mark, s.Issued, s.BackupCodes = mark, 1, []string{"12345678"}
		})},
		"a backup code is used": {text: head + "\" TOTP_AGENT id=" + mark.ID + " identity=" + mark.Identity + " gen=3 codes=2\n12345678\n", want: with(func(s *otp.State) {
			s.Mark, s.Issued, s.BackupCodes, s.Used = mark, 2, []string{"12345678"}, true
		})},
		"mark with a path":       {text: head + "\" TOTP_AGENT id=../../../../../../../../tmp identity=a gen=3 codes=2\n", want: base},
		"mark without identity":  {text: head + "\" TOTP_AGENT id=" + mark.ID + " gen=3\n", want: base},
		"mark with generation 0": {text: head + "\" TOTP_AGENT id=" + mark.ID + " identity=a gen=0\n", want: base},
		"mark, empty":            {text: head + "\" TOTP_AGENT\n", want: base},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := otp.ParseState([]byte(tt.text))
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v; want %v", err, tt.err)
			}
			if diff := cmp.Diff(plain(tt.want), plain(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err != nil {
				shown(t, "error", err.Error())
			}
		})
	}
}

// FuzzParseState shows that what is read can be written, and is read the same
// again.
func FuzzParseState(f *testing.F) {
	b, err := fresh().Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(rfcSecret + "\r\n\" RATE_LIMIT 3 30 1790000000\r\n\" DISALLOW_REUSE 1\r\n\" TOTP_AUTH\r\n\" X\r\n12345678\r\n01234567"))
	f.Add([]byte("0a 1a-8A\n+12345678\n\v\f\r 23456789\n\"\" TOTP_AUTH\n\" TOTP_AGENT id=x\n\" "))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := otp.ParseState(data)
		if err != nil {
			return
		}
		b, err := s.Format()
		if errors.Is(err, otp.ErrTooLarge) {
			return // what is always written may not fit into what was there
		}
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		again, err := otp.ParseState(b)
		if err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
		if s.Mark != (otp.Mark{}) {
			s.Issued = max(s.Issued, len(s.BackupCodes)) // Format says it where it was not said
		} else {
			s.Issued = 0
		}
		if diff := cmp.Diff(plain(s), plain(again)); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
