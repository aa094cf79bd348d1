// A table of what the caches passed, and what is still failing. Exits with 1 if one of ours, whose names begin with `weir`,
// passed fewer of the required tests than the best of the others.
//
//   node report.mjs SUITE name=results.json ...

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [suite, ...files] = process.argv.slice(2)
const load = async path => import(pathToFileURL(`${suite}/${path}`).href)
const groups = [...(await load('tests/index.mjs')).default, (await load('tests/surrogate-control.mjs')).default]
const { determineTestResult } = await load('lib/display.mjs')

const caches = files.map(argument => {
  const [name, file] = argument.split('=')
  return { name, results: JSON.parse(readFileSync(file, 'utf8')) }
})
const passes = (id, results) => ['✅', 'Y'].includes(determineTestResult(groups, id, results)[2])
const tests = groups.flatMap(group => group.tests.map(test => ({ ...test, group: group.name })))
const run = tests.filter(test => !test.browser_only)

console.log(`${'kind'.padEnd(10)}${'tests'.padStart(6)}${caches.map(cache => cache.name.padStart(10)).join('')}`)
const counts = {}
for (const kind of ['required', 'optimal', 'check']) {
  const of = run.filter(test => (test.kind ?? 'required') === kind)
  counts[kind] = caches.map(({ results }) => of.filter(test => passes(test.id, results)).length)
  console.log(`${kind.padEnd(10)}${String(of.length).padStart(6)}${counts[kind].map(n => String(n).padStart(10)).join('')}`)
}

const isOurs = ({ name }) => name.startsWith('weir')
const [ours, theirs] = [caches.filter(isOurs), caches.filter(cache => !isOurs(cache))]
for (const { name, results } of ours) {
  console.log(`\nrequired tests that ${name} does not pass:`)
  for (const test of run.filter(test => (test.kind ?? 'required') === 'required' && !passes(test.id, results))) {
    const why = results[test.id]
    const others = theirs.filter(cache => passes(test.id, cache.results)).map(cache => cache.name)
    console.log(`  ${test.id}: ${Array.isArray(why) ? why[1] : 'not run'}${others.length ? ` (${others.join(', ')} does)` : ''}`)
  }
}

const required = cache => counts.required[caches.indexOf(cache)]
const best = Math.max(...theirs.map(required))
const worse = ours.filter(cache => required(cache) < best)
for (const cache of worse) {
  console.error(`\n${cache.name} passes ${required(cache)} required tests, the best of the others ${best}`)
}
if (worse.length > 0 || [...ours, ...theirs].some(({ results }) => Object.keys(results).length === 0)) process.exit(1)
