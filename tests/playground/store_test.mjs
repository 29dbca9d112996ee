// The store as plain data: run by `node --test`, started from test_units.py.
import assert from 'node:assert/strict';
import test from 'node:test';

const at = (path) => import(new URL(`../../src/kontext/playground/${path}`, import.meta.url));
const tree = await at('core/tree.js');
const state = await at('core/state.js');
const sizes = await at('core/sizes.js');
const words = await at('core/words.js');
const pointing = await at('core/pointing.js');
const { carriesHistory } = await at('core/png.js');
const { differencePixels } = await at('elements/difference.js');
const { veilPixels } = await at('elements/region.js');
const { curl, literal, python, quoted } = await at('core/calls.js');
const { sharedPage } = await at('core/share.js');
const { suggestions } = await at('core/suggestions.js');
const { located } = await at('core/api.js');

const turn = (id, parent, prompt, number) => ({
  id,
  parent,
  prompt,
  number,
  kind: parent ? 'edit' : 'source',
  name: '',
  settings: {},
  facts: {},
  references: [],
});
const TURNS = [turn('a', null, '', 0), turn('b', 'a', 'blue', 1), turn('c', 'b', 'hat', 2), turn('d', 'a', 'red', 3)];
const sessionResponse = (turns = TURNS, more = {}) => ({
  id: 's',
  name: 'kid',
  revision: 1,
  head: 'c',
  turns,
  jobs: [],
  ...more,
});
const opened = () => state.withSession(state.initial(), sessionResponse());
const job = (id, parent, more = {}) => ({
  id,
  session: 's',
  parent,
  kind: 'edit',
  state: 'queued',
  prompt: 'green',
  seed: 1,
  position: 1,
  step: 0,
  steps: 8,
  created: 5,
  ...more,
});

test('a session starts at its head and knows the way there', () => {
  const now = opened();
  assert.equal(now.here, 'c');
  assert.deepEqual(
    tree.path(now, 'c').map((one) => one.id),
    ['a', 'b', 'c'],
  );
});

test('undo and redo walk the way that was taken, also after a look at another branch', () => {
  let now = state.select(opened(), 'a');
  assert.equal(tree.undoTarget(now), null);
  assert.equal(tree.redoTarget(now), 'b');
  now = state.select(state.select(now, 'd'), 'a');
  assert.equal(tree.redoTarget(now), 'd');
});

test('states are never changed in place', () => {
  const before = opened();
  const copy = structuredClone(before);
  state.select(before, 'd');
  state.withJobs(before, [job('j', 'c')]);
  state.withEvent(before, 'done', { job: 'j', turn: turn('j', 'c', 'green', 4), revision: 2 });
  state.withoutTurn(before, 'b');
  assert.deepEqual(before, copy);
});

test('a job is a node of the tree under its own id until the turn of that id is there', () => {
  let now = state.withJobs(opened(), [job('j', 'c')]);
  assert.equal(now.here, 'j');
  assert.equal(tree.base(now).id, 'c');
  now = state.withEvent(now, 'step', { job: 'j', step: 3, steps: 8, preview: 'data:x' });
  assert.equal(tree.node(now, 'j').job.preview, 'data:x');
  now = state.withEvent(now, 'done', { job: 'j', turn: turn('j', 'c', 'green', 4), head: 'j', revision: 2 });
  assert.equal(tree.base(now).id, 'j');
  assert.equal(now.jobs.j, undefined);
});

test('the time to go follows from the pace of the steps so far', () => {
  const step = (now, at, ms) => state.withEvent(now, 'step', { job: 'j', step: at, steps: 20 }, ms);
  let now = step(state.withJobs(opened(), [job('j', 'c')]), 0, 500);
  assert.equal(now.jobs.j.left, null, 'one event has no pace');
  now = step(step(now, 1, 1000), 5, 3000);
  assert.equal(now.jobs.j.left, 7.5);
  assert.equal(state.withSession(now, sessionResponse(TURNS, { jobs: [job('j', 'c')] })).jobs.j.left, 7.5);
});

test('events that overtake the answer to the request lose nothing', () => {
  let now = state.withEvent(opened(), 'step', { job: 'j', step: 2, steps: 8, preview: 'data:x' });
  assert.equal(tree.nodes(now).length, 4, 'not shown before its prompt is known');
  now = state.withJobs(now, [job('j', 'c')]);
  assert.equal(now.jobs.j.step, 2);
  now = state.withEvent(opened(), 'done', { job: 'j', turn: turn('j', 'c', 'green', 4), revision: 2 });
  now = state.withJobs(now, [job('j', 'c')]);
  assert.equal(now.here, 'j');
  assert.equal(tree.node(now, 'j').job, undefined);
});

test('a failed edit leads back to where it began and stays visible, a cancelled one goes', () => {
  const running = state.withJobs(opened(), [job('j', 'c')]);
  const failed = state.withEvent(running, 'failed', { job: 'j', state: 'failed', message: 'no' });
  assert.equal(failed.here, 'c');
  assert.equal(tree.node(failed, 'j').job.message, 'no');
  const cancelled = state.withEvent(running, 'failed', { job: 'j', state: 'cancelled', message: '' });
  assert.equal(cancelled.here, 'c');
  assert.equal(tree.node(cancelled, 'j'), null);
});

test('how an edit ends is shown the same whether its event or the response to its request arrives first', () => {
  const sent = () => state.withSending(opened(), { id: 'sending-1', parent: 'c', prompt: 'green', created: 5 });
  const accepted = [job('j', 'c'), job('k', 'c', { seed: 2 })];
  const ended = (one, how) => (now) => state.withEvent(now, 'failed', { job: one, state: how, message: 'no' });
  const done = (one) => (now) => state.withEvent(now, 'done', { job: one, turn: turn(one, 'c', 'green', 4), revision: 2 });
  const cases = [
    [accepted.slice(0, 1), [ended('j', 'failed')], 'c'],
    [accepted.slice(0, 1), [ended('j', 'refused')], 'c'],
    [accepted.slice(0, 1), [ended('j', 'cancelled')], 'c'],
    [accepted.slice(0, 1), [done('j')], 'j'],
    [accepted, [ended('j', 'failed')], 'k'],
    [accepted, [ended('j', 'cancelled')], 'k'],
    [accepted, [ended('j', 'failed'), done('k')], 'k'],
    [accepted, [ended('j', 'failed'), ended('k', 'failed')], 'c'],
  ];
  for (const [jobs, events, here] of cases) {
    const answer = (now) => state.withJobs(now, jobs, 'sending-1');
    const shown = (order) => {
      const now = order.reduce((before, change) => change(before), sent());
      return {
        here: now.here,
        nodes: tree.nodes(now).map(({ id, prompt, job: of }) => [id, prompt, of?.state ?? 'turn']),
      };
    };
    const after = shown([answer, ...events]);
    assert.equal(after.here, here);
    for (let place = 1; place <= events.length; place++) {
      assert.deepEqual(shown([...events.slice(0, place), answer, ...events.slice(place)]), after, `the response after ${place} events`);
    }
  }
});

test('an edit that failed before the response arrived does not take the page away from another turn', () => {
  let now = state.withSending(opened(), { id: 'sending-1', parent: 'c', prompt: 'green', created: 5 });
  now = state.withEvent(state.select(now, 'd'), 'failed', { job: 'j', state: 'failed', message: 'no' });
  assert.equal(state.withJobs(now, [job('j', 'c')], 'sending-1').here, 'd');
});

test('a prompt that comes back to be changed leaves the failed edit for the turn it started from', () => {
  let now = state.withEvent(state.withJobs(opened(), [job('j', 'c')]), 'failed', {
    job: 'j',
    state: 'refused',
    message: 'no',
  });
  now = state.withPrompt(state.select(now, 'j'), 'green');
  assert.equal(now.here, 'c');
  assert.equal(now.draft.prompt, 'green');
  assert.equal(state.withPrompt(state.select(now, 'd'), 'red').here, 'd', 'a turn stays');
});

test('prompts that cannot be near the limit are not counted', () => {
  for (const [prompt, least, may] of [
    ['', 2, true],
    ['', 3, false],
    ['abc', 5, true],
    ['abc', 6, false],
    ['帽', 5, true],
    ['帽', 6, false],
  ]) {
    assert.equal(words.mayReach(prompt, least), may, `${prompt} ${least}`);
  }
  const known = {
    ...opened(),
    capabilities: { limits: { prompt_tokens: 40 } },
    draft: { prompt: 'a', references: [] },
  };
  assert.equal(words.tokensHere({ ...known, tokens: { prompt: 'b', count: 30 } }), null, 'of another prompt');
  assert.equal(words.tokensHere({ ...known, tokens: { prompt: 'a', count: 19 } }), null, 'far from it');
  assert.deepEqual(words.tokensHere({ ...known, tokens: { prompt: 'a', count: 41 } }), { count: 41, limit: 40 });
});

test('when one of several variants fails the next one still in work is shown', () => {
  const two = state.withJobs(opened(), [job('j', 'c'), job('k', 'c', { seed: 2 })]);
  assert.equal(state.withEvent(two, 'failed', { job: 'j', state: 'failed', message: 'no' }).here, 'k');
});

test('loading the same session again keeps the place, unless the turn is gone', () => {
  const now = state.select(opened(), 'd');
  assert.equal(state.withSession(now, sessionResponse()).here, 'd');
  assert.equal(state.withSession(now, sessionResponse(TURNS.slice(0, 3))).here, 'c');
});

test('an answer that others overtook changes nothing, and no turn heard of meanwhile is lost', () => {
  const named = TURNS.map((one) => (one.id === 'b' ? { ...one, name: 'a blue one' } : one));
  let now = state.withSession(opened(), sessionResponse(named, { revision: 3 }));
  now = state.withSession(now, sessionResponse(TURNS, { revision: 2 }));
  assert.equal(now.session.turns.b.name, 'a blue one');
  now = state.withEvent(state.withJobs(now, [job('j', 'c')]), 'done', {
    job: 'j',
    turn: turn('j', 'c', 'green', 4),
    revision: 5,
  });
  now = state.withSession(now, sessionResponse(named, { revision: 4 }));
  assert.equal(now.here, 'j');
  assert.equal(state.withSession(now, sessionResponse(named, { revision: 6 })).here, 'c', 'what somebody deleted goes');
});

test('deleting a turn takes what was made from it and goes to its parent', () => {
  const now = state.withoutTurn(opened(), 'b');
  assert.deepEqual(Object.keys(now.session.turns), ['a', 'd']);
  assert.equal(now.here, 'a');
});

test('rows: one column for a conversation, one more for each branch, variants share a row', () => {
  const shape = (now) => tree.rows(now).map(({ depth, members }) => [depth, members.map((one) => one.id).join('')]);
  assert.deepEqual(shape(opened()), [
    [0, 'a'],
    [1, 'b'],
    [1, 'c'],
    [1, 'd'],
  ]);
  const line = state.withSession(state.initial(), sessionResponse(TURNS.slice(0, 3)));
  assert.deepEqual(shape(line), [
    [0, 'a'],
    [0, 'b'],
    [0, 'c'],
  ]);
  const variants = [turn('a', null, '', 0), turn('b', 'a', 'blue', 1), turn('x', 'a', 'blue', 2), turn('y', 'x', 'hat', 3)];
  assert.deepEqual(shape(state.withSession(state.initial(), sessionResponse(variants, { head: 'y' }))), [
    [0, 'a'],
    [0, 'bx'],
    [0, 'y'],
  ]);
});

test('variants are flipped through in a ring', () => {
  const variants = [turn('a', null, '', 0), turn('b', 'a', 'blue', 1), turn('x', 'a', 'blue', 2), turn('d', 'a', 'red', 3)];
  const now = state.withSession(state.initial(), sessionResponse(variants, { head: 'b' }));
  assert.equal(tree.neighbor(now, 1), 'x');
  assert.equal(tree.neighbor(now, -1), 'x');
  assert.equal(tree.neighbor(state.select(now, 'd'), 1), null);
});

test('a request holds what was asked and nothing else', () => {
  let now = { ...opened(), draft: { prompt: ' Make it blue ', references: [{ picture: 'p', url: '', role: null }] } };
  assert.deepEqual(state.editBody(now, 'c', { box: [1, 2, 3, 4] }), {
    prompt: 'Make it blue',
    count: 1,
    box: [1, 2, 3, 4],
    parent: 'c',
    references: ['p'],
    lock: true,
    size: 'match',
  });
  now = { ...now, settings: { ...now.settings, seed: 0, steps: 4 } };
  assert.deepEqual(state.editBody(now, undefined, {}), {
    prompt: 'Make it blue',
    count: 1,
    size: '1:1',
    seed: 0,
    steps: 4,
  });
  now = {
    ...now,
    settings: {
      ...state.SETTINGS,
      negative_prompt: 'blurry',
      strength: 0.5,
      expand: '16:9',
      sampler: 'ab2',
      expand_prompt: true,
    },
  };
  const asked = { prompt: 'Make it blue', count: 1, negative_prompt: 'blurry', sampler: 'ab2' };
  assert.deepEqual(state.editBody(now, undefined, {}), { ...asked, size: '1:1' });
  assert.deepEqual(state.editBody(now, 'c', {}), {
    ...asked,
    parent: 'c',
    references: ['p'],
    lock: true,
    size: 'match',
    strength: 0.5,
    expand: '16:9',
  });
  now = { ...now, capabilities: { features: { expand_prompt: true } } };
  assert.equal(state.editBody(now, 'c', {}).expand_prompt, true);
});

test('one of several models is chosen, and only then named in a request', () => {
  const models = [
    { name: 'a', prompt_tokens: 40 },
    { name: 'b', prompt_tokens: null },
  ];
  const one = state.withModel({ ...opened(), capabilities: { models: models.slice(0, 1), limits: { variants: 4 } } }, 'b');
  assert.equal(state.chosenModel(one), null);
  assert.equal(state.editBody(one, 'c', {}).model, undefined);
  assert.deepEqual(one.capabilities.limits, { variants: 4, prompt_tokens: 40 });
  let now = state.withModel({ ...opened(), capabilities: { models, limits: {} } }, 'b');
  assert.equal(state.editBody(now, 'c', {}).model, 'b');
  now = state.withModel(now, 'gone');
  assert.equal(state.editBody(now, 'c', {}).model, 'a');
  assert.equal(now.capabilities.limits.prompt_tokens, 40);
  assert.equal(state.withModel(state.initial(), 'a').capabilities, null, 'not known yet');
});

test('references: at most the limit, replaced in place, removed', () => {
  let now = opened();
  for (const picture of ['p', 'q', 'r', 's']) now = state.addReference(now, { picture }, 3);
  assert.deepEqual(
    now.draft.references.map((one) => one.picture),
    ['p', 'q', 'r'],
  );
  now = state.changeReference(now, 1, { picture: 'z' });
  assert.deepEqual(
    state.changeReference(now, 0, null).draft.references.map((one) => one.picture),
    ['z', 'r'],
  );
});

test('output sizes follow the rules of the engine', () => {
  assert.deepEqual(sizes.outputSize('match', [641, 427], []), [641, 427]);
  assert.deepEqual(sizes.outputSize('1:1', [640, 480], []), [480, 480]);
  assert.deepEqual(sizes.outputSize('16:9', [256, 256], []), [256, 144]);
  assert.deepEqual(sizes.outputSize('300x200', [640, 480], []), [300, 200]);
  assert.deepEqual(
    sizes.outputSize('3:2', null, [
      [256, 256],
      [320, 208],
    ]),
    [312, 208],
  );
  assert.deepEqual(sizes.usedPart('1:1', [640, 480], []), [0.125, 0, 0.75, 1]);
  for (const wrong of ['', 'big', '0:1', '99:1', '8x8', '1x99999', 'javascript:1']) assert.equal(sizes.parse(wrong), null, wrong);
});

test('pictures named in a prompt are found in both languages', () => {
  assert.deepEqual(words.namedPictures('Put the hat of image 2 on the kid of Image 1'), [2, 1]);
  assert.deepEqual(words.namedPictures('用图片3的风格，图2的衣服'), [3, 2]);
  assert.deepEqual(words.namedPictures('imagine 2 dogs and image 12'), []);
});

test('templates say what to select; phrases come once; file names are tame', () => {
  assert.deepEqual(words.fillIn('Make it [blue] now'), { text: 'Make it blue now', start: 8, end: 12 });
  assert.equal(
    words.addPhrase(words.addPhrase('A cat', 'in the style of image 2'), 'in the style of image 2'),
    'A cat in the style of image 2',
  );
  assert.equal(words.fileName('../../<b>Make "it" blue</b>\u0000'), 'b-Make-it-blue-b');
  assert.equal(words.fileName('把头发染成蓝色'), '把头发染成蓝色');
  assert.equal(words.fileName('///'), 'picture');
  assert.deepEqual(words.remember(['a', 'b'], ' b '), ['b', 'a']);
});

test('boxes stay inside the picture and have whole numbers', () => {
  assert.deepEqual(pointing.boxFrom([-5, 10.4], [30.2, 300], [100, 200]), [0, 10, 31, 190]);
  assert.equal(pointing.boxFrom([5, 5], [5.5, 90], [100, 200]), null);
  assert.deepEqual(pointing.nudge([90, 0, 10, 10], 5, -5, false, [100, 100]), [90, 0, 10, 10]);
  assert.deepEqual(pointing.nudge([80, 0, 10, 10], 50, 5, true, [100, 100]), [80, 0, 20, 15]);
});

test('our own PNGs are known by their chunk', () => {
  const chunk = (kind, data) => [0, 0, 0, data.length, ...Buffer.from(kind), ...data, 0, 0, 0, 0];
  const png = (...chunks) => Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, ...chunks.flat()]);
  assert.ok(carriesHistory(png(chunk('IHDR', Array(13).fill(0)), chunk('iTXt', [...Buffer.from('kontext\0\0\0')]))));
  assert.ok(!carriesHistory(png(chunk('IHDR', Array(13).fill(0)), chunk('tEXt', [...Buffer.from('kontext\0')]))));
  assert.ok(!carriesHistory(png([255, 255, 255, 255], [...Buffer.from('IHDR')])));
  assert.ok(!carriesHistory(new Uint8Array(3)));
});

test('difference and veil count and color every pixel', () => {
  const a = Uint8ClampedArray.from([0, 0, 0, 255, 9, 9, 9, 255]);
  const b = Uint8ClampedArray.from([0, 0, 0, 255, 9, 19, 9, 255]);
  const { pixels, share } = differencePixels(a, b);
  assert.equal(share, 0.5);
  assert.deepEqual([...pixels], [16, 16, 16, 255, 24, 64, 24, 255]);
  const grey = new Uint8ClampedArray(5 * 1 * 4);
  grey.fill(255, 8, 12); // the middle one of five
  assert.deepEqual(
    [...veilPixels(grey, 5, 1)].filter((_, index) => index % 4 === 3),
    [150, 255, 0, 255, 150],
  );
});

test('an edit is a node of the tree while it is sent, and its jobs take its place', () => {
  const sending = state.withSending(opened(), { id: 'sending-1', parent: 'c', prompt: 'green', created: 5 });
  assert.equal(sending.here, 'sending-1');
  assert.equal(tree.node(sending, 'sending-1').job.state, 'sending');
  assert.equal(tree.base(sending).id, 'c');
  const taken = state.withJobs(sending, [job('j', 'c')], 'sending-1');
  assert.equal(taken.here, 'j');
  assert.equal(tree.node(taken, 'sending-1'), null);
  assert.equal(state.withJobs(state.select(sending, 'a'), [job('j', 'c')], 'sending-1').here, 'a', 'whoever looks elsewhere stays there');
  assert.equal(state.withoutJob(sending, 'sending-1').here, 'c');
  assert.ok(state.withSession(sending, sessionResponse()).jobs['sending-1'], 'it outlives a reload of the session');
});

test('an edit that is done before the answer to its request is shown', () => {
  let now = state.withSending(opened(), { id: 'sending-1', parent: 'c', prompt: 'green', created: 5 });
  now = state.withEvent(now, 'done', { job: 'j', turn: turn('j', 'c', 'green', 4), revision: 2 });
  now = state.withJobs(now, [job('j', 'c')], 'sending-1');
  assert.equal(now.here, 'j');
  assert.equal(tree.node(now, 'j').job, undefined);
});

test('what is drawn goes back and forth step by step', () => {
  const stroke = (x) => ({ width: 9, points: [[x, 5]] });
  let now = state.withPointing(opened(), 'c', { mask: [stroke(1)] });
  now = state.withPointing(now, 'c', { mask: [stroke(1), stroke(2)] });
  now = state.withPointing(now, 'c', { mask: [stroke(1), stroke(3)] }, false); // the same stroke continues
  now = state.withStrokesBack(now, 'c', -1);
  assert.deepEqual(now.pointing.c.mask, [stroke(1)]);
  now = state.withStrokesBack(now, 'c', 1);
  assert.deepEqual(now.pointing.c.mask, [stroke(1), stroke(3)]);
  now = state.withStrokesBack(state.withStrokesBack(state.withStrokesBack(now, 'c', -1), 'c', -1), 'c', -1);
  assert.equal(now.pointing.c, undefined);
  assert.equal(
    state.withStrokesBack(state.withPointing(now, 'c', { box: [1, 2, 3, 4] }), 'c', 1).pointing.c.box[0],
    1,
    'a new step ends what could be done again',
  );
});

test('an eraser works on what is there', () => {
  const stroke = { width: 9, points: [[1, 5]], erase: true };
  assert.deepEqual(pointing.withStroke(pointing.EMPTY, 'eraser', stroke), {});
  assert.deepEqual(pointing.withStroke({ ...pointing.EMPTY, box: [1, 2, 3, 4] }, 'eraser', stroke), { mask: [stroke] });
  assert.ok(pointing.isEmpty({ ...pointing.EMPTY, mask: [stroke] }));
});

test('calls are quoted for a shell and for Python', () => {
  assert.equal(quoted("the kid's $HOME"), `'the kid'\\''s $HOME'`);
  assert.equal(literal({ a: [1, null, true, 'x"\n'], b: false }), '{"a": [1, None, True, "x\\"\\n"], "b": False}');
  const call = { root: 'http://host/kontext/', session: 's', body: { prompt: 'red', lock: true }, key: true };
  assert.match(curl(call), /^curl .*'http:\/\/host\/kontext\/api\/sessions\/s\/edits'/);
  assert.match(curl(call), /x-key: \$KONTEXT_KEY/);
  assert.match(python(call), /"lock": True,/);
  assert.ok(!curl({ ...call, key: false }).includes('KEY') && !python({ ...call, key: false }).includes('KEY'));
});

test('a shared page holds its words as text', () => {
  const page = sharedPage({
    title: '<script>"&\'',
    note: 'n',
    language: 'en',
    steps: [{ picture: 'data:x"onload=', size: [1, 2], words: '<b>' }],
  });
  assert.ok(!/<script|<b>|"onload/.test(page));
  assert.match(page, /&lt;script&gt;&quot;&amp;&#39;/);
});

test('words that ask for a change are sessionResponse from those that describe', () => {
  const asks = ['Make the hair blue', 'please remove the whale', '把头发染成蓝色', 'Change it', '去掉鲸鱼'];
  const describes = ['A pink monster', 'Makeup on a face', 'Turning wheels', '一只猫', 'Addis Ababa at night'];
  assert.deepEqual([...asks, ...describes].filter(words.looksLikeEdit), asks);
});

test('that a picture is a photograph is said of the first one only, without figures', () => {
  const sessionResponse = [
    'this looks like a photograph, and nano knows illustrations (it sees this one at 26 dB); expect little',
    'other',
  ];
  assert.deepEqual(words.warningsFor(sessionResponse, false), ['other']);
  assert.deepEqual(words.warningsFor(sessionResponse), [
    'this looks like a photograph, and nano knows illustrations; expect little',
    'other',
  ]);
});

test('what is offered comes from the model, and from the page where nothing is known', () => {
  const one = (use) => ({ use, label: { en: use }, prompt: { en: `${use} [it]`, zh: '它' } });
  const known = { model: { suggestions: [one('edit'), one('generate')] } };
  assert.deepEqual(suggestions(known, 'generate'), [{ label: 'generate', prompt: 'generate [it]' }]);
  assert.deepEqual(suggestions(known, 'box'), [{ label: 'edit', prompt: 'edit [it]' }]);
  assert.equal(suggestions({ model: { suggestions: null } }, 'edit').length, 6);
  assert.deepEqual(suggestions({ model: null }, 'edit'), []);
  assert.deepEqual(suggestions({ model: { suggestions: [] } }, 'edit'), []);
});

test('addresses of the API lie below the page', () => {
  assert.ok(located('/api/x').endsWith('/playground/api/x'));
  assert.equal(located('https://host/api/x'), 'https://host/api/x');
});
