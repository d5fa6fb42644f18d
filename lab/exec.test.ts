import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { runningLab } from './exec.ts'
import { beginning, makeState, statePaths, writeRecord, type LabRecord } from './state.ts'

test('a lab that another version brought up is told apart, with the command that ends it', async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-state-'))
  const before = process.env.SWITCHYARD_STATE
  process.env.SWITCHYARD_STATE = state
  t.teardown(() => {
    if (before === undefined) delete process.env.SWITCHYARD_STATE
    else process.env.SWITCHYARD_STATE = before
    rmSync(state, { recursive: true, force: true })
  })
  t.throws(() => runningLab('old'), { message: 'the lab "old" is not up; "switchyard lab up --lab old" brings it up' })
  const paths = statePaths('old')
  makeState(paths)
  // As written before there was a form: a process that lives, and half of what is known today.
  writeRecord(paths, { pid: process.pid, began: beginning(process.pid), apiPort: 1 } as unknown as LabRecord)
  t.throws(() => runningLab('old'), /was brought up by another version of switchyard; "switchyard lab down --lab old" ends it/)
})
