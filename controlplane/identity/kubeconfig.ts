import type { Pair } from './ca.ts'

/** A kubeconfig with one cluster and one user, as text. */
export function kubeconfigText(server: string, ca: string | undefined, user: string, pair: Pair | undefined): string {
  const b64 = (text: string): string => Buffer.from(text).toString('base64')
  return [
    'apiVersion: v1',
    'kind: Config',
    'clusters:',
    '- name: switchyard',
    '  cluster:',
    `    server: ${server}`,
    ...(ca === undefined ? [] : [`    certificate-authority-data: ${b64(ca)}`]),
    'contexts:',
    '- name: switchyard',
    '  context:',
    '    cluster: switchyard',
    `    user: ${JSON.stringify(user)}`,
    'current-context: switchyard',
    'users:',
    `- name: ${JSON.stringify(user)}`,
    ...(pair === undefined ? ['  user: {}'] : ['  user:', `    client-certificate-data: ${b64(pair.certificate)}`, `    client-key-data: ${b64(pair.key)}`]),
    '',
  ].join('\n')
}
