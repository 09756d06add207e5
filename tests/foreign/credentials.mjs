// Credentials of the Node clients, for TLS or for none.
//
// TOUCHDOWN_TLS may name a folder with ca.pem, and client.pem with client.key if the server asks for a certificate.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export function credentials(grpc) {
  const folder = process.env.TOUCHDOWN_TLS;
  if (!folder) return grpc.credentials.createInsecure();
  const read = (name) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name)) : null);
  return grpc.credentials.createSsl(read('ca.pem'), read('client.key'), read('client.pem'));
}
