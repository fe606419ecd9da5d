// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"strconv"
	"strings"
	"time"
)

// What the card says, apart from how it is shown. Sentences are short and say
// what to do; the reader is in a hurry.

type section struct {
	title string
	parts []part
}

// A part is one of a paragraph, a table of names and values, lines to be copied
// as they stand, and the QR code.
type part struct {
	para  string
	rows  [][2]string
	lines []string
	qr    bool
}

// A medium is what a card is shown on.
type medium int

const (
	plain  medium = iota // text without colours, as age -d prints it
	colour               // a terminal that takes SGR colours
	html                 // a browser
)

func (c Card) content(m medium) []section {
	return []section{c.head(), c.scan(m), c.backup(), c.login(), c.refused()}
}

func (c Card) head() section {
	rows := [][2]string{{"Server", c.Hostname}, {"Instance", c.InstanceID}, {"User", c.User}, {"Run by", c.Issuer}}
	if !c.Created.IsZero() {
		rows = append(rows, [2]string{"Made", c.Created.UTC().Format(time.DateTime) + " UTC, by the server's clock"})
	}
	rows = append(rows, [2]string{"Card", c.ID})
	if c.Generation > 1 {
		rows = append(rows, [2]string{"Number", strconv.Itoa(c.Generation) + "; the codes of all cards before are dead"})
	}
	if c.Supersedes != "" {
		rows = append(rows, [2]string{"Replaces", c.Supersedes})
	}
	s := section{title: "ENROLLMENT CARD for " + c.account(), parts: []part{{rows: rows}}}
	if len(c.Escrow) == 0 {
		return s.add(part{para: "Keep this card to yourself: who has it can make your codes. It was sealed so that you can read it and nobody else."})
	}
	return s.add(
		part{para: "Keep this card to yourself: who has it can make your codes. It was sealed so that you can read it, and these as well:"},
		part{lines: c.Escrow})
}

func (c Card) scan(m medium) section {
	s := section{title: "1. Put the secret into your authenticator app"}.add(
		part{para: "Scan this with Google Authenticator, Microsoft Authenticator, Authy or another app for one-time codes:"},
		part{qr: true})
	if m == plain {
		s = s.add(part{para: "The code above needs a terminal with LIGHT TEXT ON A DARK BACKGROUND. If yours is dark on light, or the app does not see the code, open the envelope with \"totpctl open\", which sets the colours itself, or type the secret into the app by hand:"})
	} else {
		s = s.add(part{para: "If the app does not see the code, type the secret in by hand:"})
	}
	return s.add(
		part{rows: [][2]string{
			{"Account", c.account()},
			{"Secret", groups(c.Secret)},
			{"Kind", "time-based (TOTP), SHA1, 6 digits, every 30 seconds"},
		}},
		part{para: uriHint(m)},
		part{lines: []string{c.OTPAuth}})
}

func (c Card) backup() section {
	s := section{title: "2. Keep the backup codes"}
	if len(c.BackupCodes) == 0 {
		return s.add(part{para: "This card has none. If the app is lost, the way in is the server's console."})
	}
	const perLine = 5
	var lines []string
	for i := 0; i < len(c.BackupCodes); i += perLine {
		lines = append(lines, strings.Join(c.BackupCodes[i:min(i+perLine, len(c.BackupCodes))], "   "))
	}
	return s.add(
		part{para: "Each of these works once in place of a code from the app, for the day the phone is lost. Keep them elsewhere than on the phone."},
		part{lines: lines})
}

func (c Card) login() section {
	s := section{title: "3. Log in"}.add(
		part{para: "With the server's name or IP address for ADDRESS, and your SSH key as always:"},
		part{lines: []string{"ssh " + c.User + "@ADDRESS"}},
		part{para: "In PuTTY: " + c.User + "@ADDRESS as the host name, and the key file under Connection, SSH, Auth."})
	if len(c.HostKeys) == 0 {
		s = s.add(part{para: "The server had no host keys when this card was made. Ask for their fingerprints before you trust the one of the first connection."})
	} else {
		var lines []string
		for _, k := range c.HostKeys {
			typ, fp, _, _ := splitHostKey(k)
			lines = append(lines, typ+" "+fp)
		}
		s = s.add(
			part{para: "The first connection asks whether the server's key is right. Say yes only if it shows one of these fingerprints; if it shows another, stop: that is not your server."},
			part{lines: lines})
	}
	return s.add(
		part{para: "Then the server asks for the code:"},
		part{lines: []string{"Verification code: "}},
		part{para: "Type the six digits that the app shows now; nothing appears while you type. A code works once: for another login, wait until the app shows the next."})
}

func (c Card) refused() section {
	return section{title: "4. If you are refused"}.add(
		part{para: "Asked for the code, then refused: it was mistyped or used before, or the phone's clock is wrong (let the phone set it by itself). Wait for the next code. If every code is refused, a newer card has replaced this one, or you are not enrolled."},
		part{para: "Not asked, \"Permission denied (keyboard-interactive)\": there were too many tries. Wait 30 seconds, or 300 where the limit is strict, and do not try in between: every try starts the wait again."},
		part{para: "Not asked, \"Permission denied (publickey)\": the server does not know your SSH key, or the user name is wrong."})
}

func (s section) add(p ...part) section {
	s.parts = append(s.parts, p...)
	return s
}

// account is user@host, or what there is of it.
func (c Card) account() string {
	if c.Type == TypeCompact {
		return c.compactAccount()
	}
	return c.User + "@" + c.Hostname
}

// groups parts a secret into groups of four, which is how people type it.
func groups(secret string) string {
	var b strings.Builder
	for i, r := range secret {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func uriHint(m medium) string {
	if m == html {
		return "The same for a password manager:"
	}
	return "The same for a password manager, to be put together into one line:"
}
