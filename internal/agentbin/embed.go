// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build embed_agent

package agentbin

import _ "embed"

//go:embed agents/totp-agent-linux-amd64.gz
var amd64 []byte

//go:embed agents/totp-agent-linux-arm64.gz
var arm64 []byte

var packed = map[string][]byte{"amd64": amd64, "arm64": arm64}
