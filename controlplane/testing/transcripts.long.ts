import tap, { test } from 'tap'
import { folder, start } from './plane.ts'
import { findKubectl, missing, replay } from './transcripts.ts'

tap.setTimeout(3_600_000)

for (const version of ['1.29', '1.30', '1.31', '1.32', '1.33']) {
  const kubectl = findKubectl(version)
  test(`every recorded session of kubectl ${version}`, { skip: missing() ?? (kubectl === undefined ? `no kubectl.${version}` : false) }, async (t) => {
    const plane = await start(folder(), ['--advertise-address', '192.0.2.1'])
    process.on('exit', () => plane.process.kill('SIGKILL'))
    try {
      const { steps, excused, wrong } = await replay({ kubectl: kubectl! }, plane.kubeconfig)
      t.same(wrong, [], 'differs only where it is meant to')
      t.ok(excused.length <= steps / 20, `at most 5 % differ on purpose: ${excused.length} of ${steps}`)
      if (version !== '1.32') return
      const http = await replay('http', plane.kubeconfig, [], kubectl)
      t.same(http.wrong, [], 'requests differ only where they are meant to')
      t.ok(excused.length + http.excused.length <= (steps + http.steps) / 20, `at most 5 % differ on purpose: ${http.excused.length} requests of ${http.steps}`)
    } finally {
      await plane.stop()
    }
  })
}
