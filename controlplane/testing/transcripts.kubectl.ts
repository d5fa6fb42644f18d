import tap, { test } from 'tap'
import { folder, start } from './plane.ts'
import { findKubectl, missing, replay } from './transcripts.ts'

tap.setTimeout(280_000)

/** Scenarios that are quick and reach far: one each of discovery, printing, patches, apply, validation, tables, deletion. */
const sample = '^(annotate|configmap|diff|endpointslice|ingressclass|label|lease|secret|server-side-apply|svc-patch|svc-replace|unknown-fields|event)$'

const kubectl = findKubectl('1.32')

test('a sample of the recorded sessions of kubectl 1.32', { skip: missing() ?? (kubectl === undefined ? 'no kubectl.1.32' : false) }, async (t) => {
  const plane = await start(folder(), ['--advertise-address', '192.0.2.1'])
  process.on('exit', () => plane.process.kill('SIGKILL'))
  try {
    const sessions = await replay({ kubectl: kubectl! }, plane.kubeconfig, ['--only', sample])
    t.same(sessions.wrong, [], 'sessions differ only where they are meant to')
    t.ok(sessions.steps > 150, 'there were sessions', { steps: sessions.steps })
  } finally {
    await plane.stop()
  }
})
