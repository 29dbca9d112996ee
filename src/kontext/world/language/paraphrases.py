"""More ways to ask, for training alone: the benchmark's own sentences are those of `templates.py`.

People do not follow templates, so training uses many wordings of each edit; half of its sentences come from
here. None is one of `phrasings.py`, which are held out. Variants and slots are those of `templates.py`;
`grammar.py` puts them into the words of many people.
"""

Paraphrases = tuple[tuple[str, ...], tuple[str, ...]]  # English, Chinese

PARAPHRASES: dict[str, Paraphrases] = {
    "hair_color": (
        ("turn the hair {color}", "{color} hair for {who}", "color {who}'s hair {color}", "hair: {color}"),
        ("给头发染上{color}", "{who}的头发变成{color}", "要{color}的头发", "发色：{color}"),
    ),
    "hair_style": (
        ("{hair} for {who}", "cut the hair: {hair}", "{who} should have {hair}", "switch to {hair}"),
        ("{who}要{hair}", "剪成{hair}", "换个{hair}"),
    ),
    "hair_style/bald": (
        ("a bald head for {who}", "take all the hair off", "no hair, please", "cut off {who}'s hair"),
        ("不要头发", "光头", "把头发全去掉"),
    ),
    "horns/on": (("{horns} for {who}", "put {horns} on the head"), ("头上加{horns}", "{who}要{horns}")),
    "horns/off": (
        ("take away {horns}", "a head without {horns}", "take {horns} off the head"),
        ("拿掉{horns}", "不要{horns}"),
    ),
    "glasses/on": (
        (
            "{who} should wear {glasses}",
            "{glasses} for {who}",
            "give {who} {glasses}",
            "{who} needs {glasses}",
        ),
        ("戴上{glasses}", "{who}戴着{glasses}", "让{who}戴{glasses}", "要有{glasses}"),
    ),
    "glasses/off": (
        ("no {glasses}", "take the {glasses} away", "{who} should not wear {glasses}", "lose the {glasses}"),
        ("取下{glasses}", "不要{glasses}", "{who}不戴{glasses}"),
    ),
    "glasses/swap": (
        ("change the {old} to {glasses}", "{glasses}, not {old}", "turn the {old} into {glasses}"),
        ("把{old}变成{glasses}", "{old}换{glasses}", "摘掉{old}，戴上{glasses}"),
    ),
    "hat/on": (
        ("{who} should wear {hat}", "{hat} for {who}", "make {who} wear {hat}", "{who} needs {hat}"),
        ("戴上{hat}", "让{who}戴{hat}", "{who}头上戴着{hat}", "要有{hat}"),
    ),
    "hat/off": (
        ("no {old}", "take the {old} away", "{who} without the {old}", "lose the {old}"),
        ("取下{old}", "拿走{old}", "{who}不戴{old}"),
    ),
    "hat/swap": (
        ("change the {old} to {hat}", "{hat}, not the {old}", "turn the {old} into {hat}"),
        ("把{old}变成{hat}", "摘掉{old}，戴上{hat}"),
    ),
    "expression": (
        ("{who} should {express}", "the face should change: {express}", "new expression: {express}"),
        ("{who}要{express}", "表情变成{express}", "表情：{express}"),
    ),
    "cloth_color": (
        (
            "turn the {cloth} {color}",
            "{color} for the {cloth}",
            "color the {cloth} {color}",
            "give {who} {colored_cloth}",
            "dye the {cloth} {color}",
        ),
        ("{cloth}变成{color}", "给{who}换上{color}的{cloth}", "{cloth}：{color}", "要{color}的{cloth}"),
    ),
    "cloth_color/monster": (
        ("turn the monster {color}", "color the monster {color}", "the monster should be {color}"),
        ("小怪物变成{color}", "要{color}的小怪物"),
    ),
    "clothes": (
        (
            "put {clothes} on {who}",
            "{clothes} for {who}",
            "change the clothes to {clothes}",
            "wear {clothes}",
        ),
        ("给{who}换上{clothes}", "{who}穿着{clothes}", "衣服：{clothes}"),
    ),
    "beard/on": (
        ("{who} should have {beard}", "put {beard} on {who}", "{beard} for {who}"),
        ("加{beard}", "{who}要{beard}", "长出{beard}"),
    ),
    "beard/off": (
        ("no beard", "take the beard off", "{who} without facial hair", "a smooth face for {who}"),
        ("不要胡子", "剃掉胡子", "{who}没有胡子"),
    ),
    "pose": (("change the pose: {pose}", "the pose should be: {pose}"), ("{who}要{pose}", "姿势：{pose}")),
    "hold/give": (
        ("{who} should hold {thing}", "{who} holding {thing}", "hand {thing} to {who}"),
        ("{who}拿{thing}", "给{who}一个东西拿着：{thing}"),
    ),
    "hold/take": (
        ("{who} should not hold {old}", "an empty hand, no {old}", "take {old} from {who}"),
        ("不拿{old}", "手里没有{old}"),
    ),
    "hold/swap": (
        ("change {old} in the hand to {thing}", "{thing} in the hand, not {old}"),
        ("手里的{old}变成{thing}", "放下{old}，拿起{thing}"),
    ),
    "character_remove": (
        ("delete {who}", "take {who} out", "only the scene, without {who}", "clear {who} away"),
        ("删掉{who}", "移除{who}", "{who}不见了"),
    ),
    "object_remove": (
        ("take {thing} away", "take out {thing}", "{thing} {side} should go", "clear {thing} {side} away"),
        ("拿走{thing}", "删掉{side}的{thing}", "不要{thing}", "把{thing}擦掉"),
    ),
    "object_add": (
        ("there is {thing} {spot}", "insert {thing} {spot}", "{thing} {spot}", "set {thing} {spot}"),
        ("{spot}有{thing}", "在{spot}加{thing}", "{spot}放{thing}"),
    ),
    "object_replace": (
        ("{thing}, not {old}", "make {old} into {thing}", "switch {old} to {thing}"),
        ("{old}变成{thing}", "让{old}变为{thing}"),
    ),
    "object_box/replace": (
        ("make it {thing} inside the red box", "the red box should hold {thing}", "red box: {thing}"),
        ("红框里变成{thing}", "红框内换{thing}"),
    ),
    "object_box/remove": (
        ("clear the red box", "empty the red box", "erase what the red box shows"),
        ("清空红框", "擦掉红框里的东西"),
    ),
    "object_color": (
        ("turn {old} {color}", "color {old} {color}", "{old} should be {color}", "dye {old} {color}"),
        ("{old}变成{color}", "给{old}涂上{color}", "要{color}，{old}的颜色"),
    ),
    "object_move": (
        ("{thing} should be on the {direction}", "bring {thing} to the {direction}"),
        ("{thing}移到{direction}", "把{thing}放到{direction}去"),
    ),
    "object_size": (
        ("{thing} should be {size}", "show {thing} {size}"),
        ("让{thing}{size}", "{thing}{size}"),
    ),
    "background": (
        (
            "{place} as the background",
            "set the scene in {place}",
            "make the background {place}",
            "{who} should be in front of {place}",
            "background: {place}",
            "move {who} to {place}",
        ),
        ("背景变成{place}", "用{place}做背景", "背景：{place}", "让{who}来到{place}"),
    ),
    "time/day": (
        ("turn it into day", "a bright day", "switch to daytime", "make the picture a sunny day"),
        ("改成白天", "场景在白天", "时间：白天"),
    ),
    "time/night": (
        ("make it dark outside", "at night", "switch to night", "a night scene", "let night fall"),
        ("改成夜晚", "场景在夜里", "时间：夜晚", "让天黑"),
    ),
    "time/sunset": (
        ("turn it into a sunset", "at sunset", "switch to sunset", "make it evening"),
        ("改成黄昏", "傍晚的场景", "时间：日落"),
    ),
    "season": (
        ("turn it into {season}", "the same place in {season}", "season: {season}", "show it in {season}"),
        ("改成{season}", "季节：{season}", "让它是{season}"),
    ),
    "weather/rain": (
        ("a rainy day", "make the weather rainy", "it should rain", "rain, please"),
        ("下雨", "天气变成下雨", "加点雨"),
    ),
    "weather/snowfall": (
        ("a snowy day", "make the weather snowy", "it should snow", "snow, please"),
        ("下雪", "天气变成下雪", "加点雪"),
    ),
    "weather/clear_rain": (
        ("take the rain away", "no rain", "make the weather dry", "remove the rain"),
        ("不要雨", "去掉雨", "雨停了"),
    ),
    "weather/clear_snowfall": (
        ("take the falling snow away", "no falling snow", "remove the snowflakes"),
        ("不要飘雪", "去掉飘雪", "雪停了"),
    ),
    "style": (
        (
            "make this {style}",
            "{style}",
            "convert the picture to {style}",
            "the whole picture should be {style}",
            "show it as {style}",
            "redraw it as {style}",
        ),
        ("改成{style}", "画成{style}", "整张图变为{style}", "风格：{style}", "要{style}"),
    ),
    "art/flat": (("give the line icons flat colors", "make the icons colorful"), ("让线稿图标有颜色",)),
    "art/line": (
        ("make the objects black line icons", "only outlines for the objects, same background"),
        ("把物体变成黑色线条图标，背景保持",),
    ),
    "text": (
        ("'{word}', not '{old}'", "the {sign} should say '{word}'", "turn '{old}' into '{word}'"),
        ("“{old}”换成“{word}”", "{sign}写“{word}”", "文字变成“{word}”"),
    ),
    "text_color": (
        ("turn the text {color}", "color the word '{old}' {color}", "text color: {color}"),
        ("文字变成{color}", "“{old}”变为{color}", "要{color}的文字"),
    ),
    "text_write": (
        ("the {sign} should say '{word}'", "put '{word}' on the {sign}", "letter the {sign}: '{word}'"),
        ("{sign}写上“{word}”", "把“{word}”写到{sign}上"),
    ),
    "text_remove": (
        ("no text on the {sign}", "take '{old}' away", "wipe the {sign} clean"),
        ("删掉“{old}”", "{sign}变空白"),
    ),
    "nothing": (
        ("change nothing", "it stays the same", "keep it", "no change", "as it is"),
        ("不变", "保持原样", "什么都不变", "别改"),
    ),
    "compound": (
        ("{first} as well as {second}", "first {first}, and after that {second}", "{first} & {second}"),
        ("先{first}，再{second}", "{first}，同时{second}", "{first}，还要{second}"),
    ),
    "character_scene": (
        ("this {noun} {place}, {doing}", "put the same {noun} {place}, {doing}"),
        ("这个{noun}在{place}，{doing}", "把同一个{noun}放到{place}，{doing}"),
    ),
    "character_view": (
        ("{who} from the {view}", "the {view} of {who}"),
        ("{who}的{view}", "从{view}看{who}"),
    ),
    "character_sheet": (
        ("front, side and back of {who}", "draw {who} from three sides"),
        ("{who}的三视图", "从三个方向画{who}"),
    ),
    "style_reference": (
        ("same style: {caption}", "{caption}, drawn like this picture"),
        ("同样的风格：{caption}", "像这张图一样画{caption}"),
    ),
    "clothes_from": (
        ("{who} in the clothes of image 2", "give {who} the outfit of image 2"),
        ("{who}穿图2的衣服", "换上图2的衣服"),
    ),
    "style_from": (
        ("image 1 in the style of image 2", "turn image 1 into the style of image 2"),
        ("图1用图2的风格", "让图1像图2一样的画风"),
    ),
    "person_from": (
        ("{other} of image 2 {spot} of image 1", "place {other} from image 2 {spot} in image 1"),
        ("图2的{other}站在图1的{spot}",),
    ),
    "background_from": (
        ("image 1 with the background of image 2", "use image 2 as the background of image 1"),
        ("图1的背景用图2的", "{who}在图2的背景前"),
    ),
    "object_from": (
        ("{thing} of image 2 {spot} in image 1", "place {thing} from image 2 {spot}"),
        ("图2的{thing}放在{spot}",),
    ),
    "generate": (
        ("{caption}, a picture", "show {caption}", "create {caption}"),
        ("一张图：{caption}", "画一画{caption}"),
    ),
    "generate/style": (
        ("{caption}, drawn as {style}", "as {style}: {caption}"),
        ("{caption}，画成{style}", "用{style}画{caption}"),
    ),
    "foreign_banner": (
        ("a red banner with '{word}'", "put '{word}' on a red banner at the top"),
        ("顶部加红色横幅“{word}”",),
    ),
    "foreign_background": (
        ("plain {color} background", "turn the background {color}"),
        ("背景变成纯{color}", "要纯{color}的背景"),
    ),
    "foreign_add": (
        ("{thing} in the {corner} corner", "place {thing} in the {corner} corner"),
        ("{corner}有{thing}", "在{corner}加{thing}"),
    ),
}
