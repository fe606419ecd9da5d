// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Makes a container, and signs two URLs for each blob: one that makes it and one
// that reads it.
//
//   node sign.mjs ENDPOINT ACCOUNT CONTAINER BLOB...
//
// The account's key is in AZURE_STORAGE_KEY. It prints two lines for each BLOB.

import { webcrypto } from "node:crypto";
import { BlobSASPermissions, BlobServiceClient, SASProtocol, StorageSharedKeyCredential } from "@azure/storage-blob";

globalThis.crypto ??= webcrypto; // of Node.js before 19

async function writeOnce(container, name) {
  const url = await container.getBlobClient(name).generateSasUrl({
    permissions: BlobSASPermissions.parse("c"),
    protocol: SASProtocol.Https,
    expiresOn: new Date(Date.now() + 24 * 3600 * 1000),
  });
  return url;
}

const [endpoint, account, containerName, ...names] = process.argv.slice(2);
const service = new BlobServiceClient(endpoint, new StorageSharedKeyCredential(account, process.env.AZURE_STORAGE_KEY));
const container = service.getContainerClient(containerName);
await container.createIfNotExists();
for (const name of names) {
  console.log(await writeOnce(container, name));
  console.log(await container.getBlobClient(name).generateSasUrl({
    permissions: BlobSASPermissions.parse("r"),
    protocol: SASProtocol.Https,
    expiresOn: new Date(Date.now() + 24 * 3600 * 1000),
  }));
}
