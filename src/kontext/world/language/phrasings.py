"""Sentences written by hand and kept for tests: other ways to ask for the same edits.

None of them is a template of `templates.py`; variants and slots are the same. Training never sees them.
Together with those of `spoken.py` they are the held-out phrasings.
"""

from .spoken import SPOKEN, Phrasings

_WRITTEN: Phrasings = {
    "hair_color": (
        (
            "I would like to see {who} with {color} hair",
            "could you recolor the hair so it is {color}?",
            "what if the hair were {color}?",
        ),
        ("我想看看{color}头发的样子", "能不能把发色变为{color}？", "请给{who}染一头{color}的头发"),
    ),
    "hair_style": (
        ("I want to see {who} with {hair}", "new haircut please: {hair}", "restyle the hair into {hair}"),
        ("想看看{who}留着{hair}的样子", "请换个新发型：{hair}", "发型改为{hair}可以吗？"),
    ),
    "hair_style/bald": (
        ("I want to see {who} with no hair at all", "get rid of every bit of hair"),
        ("让{who}一根头发也没有", "请把头发全部剃掉"),
    ),
    "horns/on": (
        ("let {who} grow {horns}", "I think {who} needs {horns} on top"),
        ("{who}头上应该有{horns}", "请在头顶画上{horns}"),
    ),
    "horns/off": (("get rid of {horns} on top",), ("头上不要有{horns}",)),
    "glasses/on": (
        ("{who} could use {glasses}", "draw {glasses} over the eyes", "I want {who} in {glasses}"),
        ("{who}需要一副{glasses}", "请在眼睛上画一副{glasses}"),
    ),
    "glasses/off": (
        ("get rid of the {glasses}", "I don't want {who} to wear {glasses} any more"),
        ("不要戴{glasses}了", "请把{glasses}拿下来"),
    ),
    "glasses/swap": (
        ("instead of the {old}, I want {glasses}", "exchange the {old}: {glasses} would be better"),
        ("不要{old}，要{glasses}", "请用{glasses}代替{old}"),
    ),
    "hat/on": (
        ("{who} would look good in {hat}", "place {hat} on top of the head"),
        ("请在头上放{hat}", "{who}戴{hat}会更好看"),
    ),
    "hat/off": (
        ("get rid of the {old}", "I want to see the head without the {old}"),
        ("头上不要{old}", "请把{old}拿下来"),
    ),
    "hat/swap": (
        ("instead of the {old}, let it be {hat}", "exchange the {old}: I prefer {hat}"),
        ("不要{old}，改戴{hat}", "请用{hat}代替{old}"),
    ),
    "expression": (
        (
            "I want {who} to {express}",
            "could you have {who} {express}?",
            "let the face change: {who} has to {express}",
        ),
        ("希望{who}{express}", "能让{who}{express}吗？", "请画出{who}{express}的脸"),
    ),
    "cloth_color": (
        (
            "I'd prefer {colored_cloth} on {who}",
            "could the {cloth} be {color}?",
            "recolor the {cloth} in {color}",
        ),
        ("{cloth}要{color}的", "能把{cloth}染为{color}吗？", "请让{who}穿{color}的{cloth}"),
    ),
    "cloth_color/monster": (
        ("I'd prefer a monster that is {color}", "paint the whole monster {color}"),
        ("小怪物要{color}的", "请把小怪物涂为{color}"),
    ),
    "clothes": (
        ("I want to see {who} in {clothes}", "swap the clothes for {clothes}"),
        ("想看{who}穿{clothes}的样子", "请换一身衣服：{clothes}"),
    ),
    "beard/on": (
        ("let {who} grow {beard}", "draw {beard} on the face"),
        ("请在脸上画{beard}", "{who}应该有{beard}"),
    ),
    "beard/off": (
        ("I want a clean-shaven face", "get rid of all hair on the chin and lip"),
        ("脸上不要有胡子", "请把脸刮干净"),
    ),
    "pose": (
        ("I want {who} to {pose}", "could {who} {pose}, please?"),
        ("希望{who}{pose}", "请{who}{pose}好吗？"),
    ),
    "hold/give": (
        ("I want to see {thing} in the hand of {who}", "let {who} carry {thing}"),
        ("{who}手上应该有{thing}", "请让{who}举着{thing}"),
    ),
    "hold/take": (
        ("the hand should be empty, without {old}", "I don't want {who} to hold {old}"),
        ("手里不要有{old}", "请让{who}空着手，不拿{old}"),
    ),
    "hold/swap": (
        ("instead of {old}, let {who} carry {thing}", "exchange {old} being held: {thing} please"),
        ("不要拿{old}，改拿{thing}", "请用{thing}代替手上的{old}"),
    ),
    "character_remove": (
        ("I want the scene without {who}", "get rid of {who}, keep the rest"),
        ("画面里不要有{who}", "请只留下背景，不要{who}"),
    ),
    "object_remove": (
        ("get rid of {thing}", "I don't want to see {thing} {side} any more", "make {thing} disappear"),
        ("不想看到{thing}", "请让{side}的{thing}消失", "画面里不要有{thing}"),
    ),
    "object_add": (
        ("I would like to see {thing} {spot}", "{spot} there should be {thing}", "draw {thing} {spot}"),
        ("{spot}应该有{thing}", "请在{spot}画上{thing}", "想在{spot}看到{thing}"),
    ),
    "object_replace": (
        ("instead of {old} I want {thing}", "swap {old} for {thing}", "{old} should become {thing}"),
        ("不要{old}，要{thing}", "请用{thing}代替{old}", "{old}应该是{thing}才对"),
    ),
    "object_box/replace": (
        ("I want {thing} where the red frame is", "swap whatever the red rectangle marks for {thing}"),
        ("红色框住的地方应该是{thing}", "请用{thing}代替红框标出的东西"),
    ),
    "object_box/remove": (
        ("get rid of whatever the red frame marks", "make the thing in the red rectangle disappear"),
        ("不要红框标出的东西", "请让红色框住的物体消失"),
    ),
    "object_color": (
        ("I'd like {old} in {color}", "could {old} be {color}?", "recolor {old}, use {color}"),
        ("{old}要{color}的", "能把{old}染为{color}吗？", "请用{color}重新涂{old}"),
    ),
    "object_move": (
        ("I want {thing} over on the {direction}", "shift {thing} towards the {direction}"),
        ("{thing}应该在{direction}", "请让{thing}到{direction}去"),
    ),
    "object_size": (
        ("I want {thing} to be {size}", "could {thing} be {size}?"),
        ("希望{thing}{size}", "请让{thing}{size}一些"),
    ),
    "background": (
        (
            "I want to see {who} in a new setting: {place}",
            "take {who} to {place}",
            "the scenery behind should be {place}",
        ),
        ("后面的景色应该是{place}", "想看到{place}作为背景", "请换个地方：{place}"),
    ),
    "time/day": (
        ("let the sun shine as at noon", "I want this to happen in daylight"),
        ("希望是大白天", "请让太阳高高升起"),
    ),
    "time/night": (
        ("let it be dark with stars in the sky", "I want this to happen after dark"),
        ("希望天黑了，有星星", "请让夜幕降临"),
    ),
    "time/sunset": (
        ("let the sun go down", "I want an orange evening sky"),
        ("希望太阳正在落山", "请画成橙色的傍晚天空"),
    ),
    "season": (
        ("what would this look like in {season}?", "let {season} come"),
        ("{season}的时候会是什么样？", "让{season}到来"),
    ),
    "weather/rain": (("let rain fall", "I want a rainy scene"), ("希望正在下雨", "请画上雨滴")),
    "weather/snowfall": (("let snowflakes fall", "I want a snowy sky"), ("希望正在下雪", "请画上雪花")),
    "weather/clear_rain": (("no more rain, please", "I want a dry scene"), ("不要再下雨了", "请把雨滴去掉")),
    "weather/clear_snowfall": (
        ("no more falling snow, please", "I want the snowflakes gone"),
        ("不要再下雪了", "请把雪花去掉"),
    ),
    "style": (
        (
            "redo the whole thing as {style}",
            "I'd like this picture as {style}",
            "render everything like {style}",
        ),
        ("整个画面用{style}来表现", "想要{style}的效果", "请重新画成{style}"),
    ),
    "art/flat": (("bring color into the uncolored icons",), ("让没有颜色的图标变成彩色",)),
    "art/line": (
        ("I want the things drawn without color, as ink icons, on the same background",),
        ("物体不要颜色，画成墨线图标，背景照旧",),
    ),
    "text": (
        (
            "instead of '{old}' it should read '{word}'",
            "I want the {sign} to show '{word}'",
            "fix the lettering: '{word}'",
        ),
        ("不要写“{old}”，要写“{word}”", "{sign}上应该是“{word}”", "请把字换为“{word}”"),
    ),
    "text_color": (
        ("I'd like the letters in {color}", "recolor '{old}', use {color}"),
        ("字要{color}的", "请用{color}来写“{old}”"),
    ),
    "text_write": (
        ("the empty {sign} should read '{word}'", "I want the lettering '{word}' on the {sign}"),
        ("空白的{sign}上应该有“{word}”", "请在{sign}上题字：“{word}”"),
    ),
    "text_remove": (
        ("I want an empty {sign}", "get rid of the lettering '{old}'"),
        ("{sign}上不要有字", "请把“{old}”抹去"),
    ),
    "nothing": (
        ("this is fine already, give it back untouched", "no edits please"),
        ("已经很好了，不用修改", "请不要动这张图"),
    ),
    "nothing/unsupported": (
        (
            "draw a giraffe on roller skates",
            "what time is it there?",
            "make {who} older",
            "can you do this in oil?",
        ),
        ("画一只长颈鹿", "这是哪里？", "让{who}变老", "能画成油画吗？"),
    ),
    "compound": (
        ("two things: {first}; also {second}", "{first}. Besides that, {second}"),
        ("两件事：{first}；另外{second}", "{first}。除此之外，{second}"),
    ),
    "character_scene": (
        (
            "I want to meet this {noun} again {place}, {doing}",
            "place the {noun} from this picture {place}, {doing}",
        ),
        ("想在{place}再见到这个{noun}，{doing}", "请把图中的{noun}画在{place}，{doing}"),
    ),
    "character_view": (
        ("I want to see the {view} of {who}", "rotate {who} until the {view} faces us"),
        ("想看到{who}的{view}", "请把{who}转到{view}朝向我们"),
    ),
    "character_sheet": (
        (
            "show {who} three times: from the front, the side and behind",
            "model sheet with three views, please",
        ),
        ("请把{who}画三遍：正面、侧面和后面", "需要一张三个角度的设定图"),
    ),
    "style_reference": (
        ("borrow the look of this picture and paint {caption}", "same look, new content: {caption}"),
        ("借用这张图的画风来画{caption}", "画风不变，内容换为：{caption}"),
    ),
    "clothes_from": (
        (
            "use the second picture's outfit for {who}",
            "I want to see {who} from the first image in the clothing that the second one shows",
            "swap the clothes for those in picture 2",
        ),
        ("请让{who}换成第二张图里的穿着", "第一张图的{who}要穿第二张图的衣服"),
    ),
    "style_from": (
        (
            "make the first picture look as if it were drawn like the second",
            "transfer the look of the second image to the first",
        ),
        ("让第一张图的画法和第二张图一样", "请照第二张图的画风重画第一张图"),
    ),
    "person_from": (
        (
            "I would like to see {other} of the second picture {spot} in the first",
            "bring {other} over from picture 2, {spot}",
        ),
        ("请在第一张图的{spot}画上第二张图里的{other}", "想让第二张图的{other}来到第一张图的{spot}"),
    ),
    "background_from": (
        (
            "take {who} from the first picture to the place that the second one shows",
            "behind {who} I want the scenery of the second image",
        ),
        ("请把第一张图的{who}带到第二张图的地方", "{who}后面要第二张图的景色"),
    ),
    "object_from": (
        (
            "I would like to have {thing} of the second picture {spot} in the first",
            "let {thing} from picture 2 appear {spot}",
        ),
        ("请在第一张图的{spot}画上第二张图里的{thing}", "想在第一张图的{spot}看到第二张图的{thing}"),
    ),
    "generate": (
        ("I want a picture of {caption}", "please paint {caption}"),
        ("想要一张图：{caption}", "请画出{caption}"),
    ),
    "generate/style": (
        ("I want {style} that shows {caption}", "please paint {caption} so that it looks like {style}"),
        ("想要{style}，内容是{caption}", "请用{style}表现{caption}"),
    ),
    "foreign_banner": (
        ("hang a red ribbon sign reading '{word}' across the top", "I want '{word}' on a red banner above"),
        ("上方要有红色横幅，内容是“{word}”", "请挂一条“{word}”的红横幅"),
    ),
    "foreign_background": (
        ("behind everything there should be just {color}", "I want a single {color} backdrop"),
        ("所有东西后面只要{color}", "想要单一的{color}背景"),
    ),
    "foreign_add": (
        (
            "I would like to see {thing} down in the {corner} corner",
            "let {thing} appear in the {corner} corner",
        ),
        ("{corner}应该有{thing}", "请让{thing}出现在{corner}"),
    ),
}

HELD_OUT: Phrasings = {
    variant: (english + SPOKEN[variant][0], chinese + SPOKEN[variant][1])
    for variant, (english, chinese) in _WRITTEN.items()
}
