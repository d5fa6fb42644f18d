/** What `/version` says: the Kubernetes version whose API this is. */
export const version = {
  major: '1',
  minor: '33',
  gitVersion: 'v1.33.0+switchyard',
  gitCommit: '0000000000000000000000000000000000000000',
  gitTreeState: 'clean',
  buildDate: '2026-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'none',
  platform: `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`,
}
