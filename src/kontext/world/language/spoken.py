"""More sentences kept for tests, as people type them: asides, complaints, reasons, several clauses.

Written without regard to the grammar of training. Variants and slots are those of `templates.py`; the
sentences of `phrasings.py` and these are the held-out phrasings together.
"""

Phrasings = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # variant: English, Chinese

SPOKEN: Phrasings = {
    "hair_color": (
        (
            "that hair is so dull, go {color}",
            "I was thinking {color} for the hair, what do you say?",
            "hair: not like that, more {color}",
            "{who} just came back from the hairdresser with {color} hair",
        ),
        ("头发不好看，来个{color}的吧", "帮{who}把头发弄成{color}，谢啦", "{who}刚染了{color}的头发"),
    ),
    "hair_style": (
        (
            "not this hairdo, {hair} suits {who} much better",
            "what does {who} look like with {hair}?",
            "time for another haircut, make it {hair}",
        ),
        ("这个发型太土了，要{hair}", "{who}如果是{hair}会是什么样？", "剪个头吧，{hair}"),
    ),
    "hair_style/bald": (
        ("all the hair has to go, down to the skin", "what would {who} look like bald?"),
        ("头发都掉光了", "{who}如果没有头发会怎么样？"),
    ),
    "horns/on": (
        ("something is missing on that head: {horns}", "{who} was born with {horns}"),
        ("头上光秃秃的，画上{horns}吧", "{who}生来就有{horns}"),
    ),
    "horns/off": (
        ("{horns}? no thanks, off with it", "the head looks better bare, without {horns}"),
        ("头上的{horns}不好看，弄掉吧", "头上什么都别长，{horns}也不要"),
    ),
    "glasses/on": (
        ("{who} can't see well, so {glasses} please", "how would {who} look with {glasses} on?"),
        ("{who}近视了，得戴{glasses}", "{who}戴上{glasses}会是什么样子？"),
    ),
    "glasses/off": (
        ("the {glasses} bother me, take them off", "let us see the eyes without the {glasses}"),
        ("{glasses}挡住眼睛了，去掉吧", "不戴{glasses}会更好看"),
    ),
    "glasses/swap": (
        ("I don't like the {old}, {glasses} would be nicer", "the {old} should go and {glasses} come on"),
        ("{old}不好看，还是{glasses}吧", "{old}就算了，给我换{glasses}"),
    ),
    "hat/on": (
        ("it's chilly, so {hat} for the head please", "how about {hat} up there on the head?"),
        ("太阳太大了，给{who}一顶{hat}吧", "头上少了点什么，来{hat}"),
    ),
    "hat/off": (
        ("lose the {old}, it hides the hair", "nobody wears a {old} indoors, off with it"),
        ("{old}太难看了，别戴了", "我不喜欢那个{old}，弄走"),
    ),
    "hat/swap": (
        ("the {old} is out of fashion, {hat} please", "I'm tired of the {old}; {hat} this time"),
        ("{old}过时了，换顶{hat}", "{old}看腻了，这次要{hat}"),
    ),
    "expression": (
        (
            "{who} looks wrong, I'd rather have {who} {express}",
            "would it be possible for {who} to {express}?",
        ),
        ("{who}的表情不对，应该{express}", "有没有可能让{who}{express}？"),
    ),
    "cloth_color": (
        (
            "I don't like that color on the {cloth}, try {color}",
            "same {cloth}, but {color}",
            "the {cloth} would look better if it were {color}",
        ),
        (
            "{cloth}的颜色不好看，试试{color}",
            "同样的{cloth}，不过要{color}",
            "{cloth}如果是{color}的就更好了",
        ),
    ),
    "cloth_color/monster": (
        ("a {color} monster would be cuter", "same monster, but in {color}"),
        ("{color}的怪物更可爱", "还是这个小怪物，但是{color}的"),
    ),
    "clothes": (
        (
            "{who} has a party tonight and will wear {clothes}",
            "these clothes are ugly, I'd rather see {clothes}",
        ),
        ("{who}今天想穿{clothes}", "这身衣服不好看，来一件{clothes}"),
    ),
    "beard/on": (
        ("{who} hasn't shaved for weeks, so there is {beard} now", "how would {who} look with {beard}?"),
        ("{who}好久没刮脸了，长出了{beard}", "{who}有{beard}会是什么样？"),
    ),
    "beard/off": (
        ("that face needs a razor", "the facial hair looks untidy, away with it"),
        ("该刮脸了", "胡子看着太乱，弄干净"),
    ),
    "pose": (
        ("the arms look stiff, {who} had better {pose}", "show us how {who} would {pose}"),
        ("{who}站得太僵硬了，应该{pose}", "我们想看{who}{pose}"),
    ),
    "hold/give": (
        ("the hand is empty, let there be {thing} in it", "{who} is carrying {thing} around"),
        ("手里空空的，拿个{thing}吧", "{who}正拿着{thing}"),
    ),
    "hold/take": (
        ("{who} put {old} down somewhere, the hand is free now", "hands free please, away with {old}"),
        ("{who}把{old}放下了，手空出来了", "手上别拿{old}了"),
    ),
    "hold/swap": (
        ("what {who} holds is {old}, but I meant {thing}", "put {old} down and pick up {thing}"),
        ("{who}拿错了，不是{old}，是{thing}", "手里的{old}不要了，拿{thing}"),
    ),
    "character_remove": (
        ("{who} is in the way, I only need the place", "can we have this without {who}?"),
        ("{who}挡住了，我只要风景", "能不能没有{who}？"),
    ),
    "object_remove": (
        (
            "{thing} doesn't belong here",
            "someone left {thing} {side}, tidy it up",
            "can we do without {thing}?",
        ),
        ("{thing}不该在这儿", "{side}那个{thing}太碍眼了，弄走", "{thing}是多余的"),
    ),
    "object_add": (
        (
            "it looks empty {spot}, how about {thing} there?",
            "could we also have {thing} {spot}?",
            "{thing} is missing {spot}",
        ),
        ("{spot}太空了，来个{thing}", "{spot}再来个{thing}好不好？", "{spot}缺个{thing}"),
    ),
    "object_replace": (
        (
            "that should have been {thing}, not {old}",
            "who ordered {old}? give me {thing}",
            "take {old} out and put {thing} in its place",
        ),
        ("我要的是{thing}，不是{old}", "{old}的位置改放{thing}", "{old}拿走，换上{thing}"),
    ),
    "object_box/replace": (
        (
            "see the red box? there should be {thing} in it",
            "what I marked in red is wrong, I need {thing} there",
        ),
        ("看到红框了吗？里面要放{thing}", "红框标的地方不对，应该是{thing}"),
    ),
    "object_box/remove": (
        ("see the red box? nothing should be in there", "I put a red box around what I don't want"),
        ("看到红框了吗？里面的东西不要", "我用红框圈出来的那个，去掉"),
    ),
    "object_color": (
        (
            "is there {old} in {color} too?",
            "{old} would look nicer in {color}",
            "same thing, but {old} is {color}",
        ),
        ("{old}有没有{color}的？", "{old}还是{color}好看", "{old}别用这个颜色，用{color}"),
    ),
    "object_move": (
        (
            "{thing} is in the wrong place, further {direction} please",
            "a bit more to the {direction} with {thing}",
        ),
        ("{thing}放错地方了，应该往{direction}", "{thing}再往{direction}一点"),
    ),
    "object_size": (
        ("{thing} has the wrong size, I need it {size}", "what if {thing} were {size}?"),
        ("{thing}的大小不对，要{size}", "{thing}能不能{size}一点？"),
    ),
    "background": (
        (
            "{who} went on a trip and is at {place} now",
            "this backdrop is boring, use {place}",
            "same thing but somewhere else: {place}",
        ),
        ("{who}去旅行了，现在在{place}", "这个背景太单调，用{place}吧", "其他一样，地点换成{place}"),
    ),
    "time/day": (
        ("it's too dark, I want broad daylight", "the sun has come up"),
        ("太黑了，要大白天", "太阳出来了，天亮了"),
    ),
    "time/night": (
        ("it's too bright, show it in the middle of the night", "everybody is asleep, it's midnight"),
        ("太亮了，要半夜的样子", "已经半夜了，天全黑了"),
    ),
    "time/sunset": (
        ("just before dark, when the sky turns orange", "golden hour would be lovely"),
        ("天快黑了，晚霞满天", "要夕阳西下的感觉"),
    ),
    "season": (
        ("it is {season} now", "wrong season, we have {season}"),
        ("现在是{season}了", "季节不对，现在是{season}"),
    ),
    "weather/rain": (
        ("it's pouring", "the weather is too nice, let it rain"),
        ("天气太好了，下点雨吧", "外面正在下大雨"),
    ),
    "weather/snowfall": (
        ("it started snowing", "white flakes come down from the sky"),
        ("开始下雪了", "天上飘着雪花"),
    ),
    "weather/clear_rain": (
        ("it has stopped raining", "too wet, no rain please"),
        ("雨已经停了", "雨太大了，别下了"),
    ),
    "weather/clear_snowfall": (
        ("it has stopped snowing", "enough snow for today"),
        ("雪已经停了", "雪太大了，别下了"),
    ),
    "style": (
        (
            "imagine this as {style}",
            "what if an artist had made {style} of this?",
            "can I get {style} out of this photo?",
        ),
        ("想象一下这是{style}", "如果这张图是{style}会怎样？", "能给我一张{style}的版本吗？"),
    ),
    "art/flat": (
        ("those icons are only outlines, fill them in", "the line icons need colors"),
        ("图标只有线条，请填上颜色", "线稿图标要有颜色"),
    ),
    "art/line": (
        ("no colors for the things, black outlines will do, background as is",),
        ("东西只要黑色轮廓，背景别动",),
    ),
    "text": (
        (
            "there is a mistake on the {sign}: it's '{word}', not '{old}'",
            "'{old}' is wrong, '{word}' is right",
            "why does it say '{old}'? it should be '{word}'",
        ),
        ("{sign}写错了，是“{word}”不是“{old}”", "“{old}”不对，应该是“{word}”", "怎么写着“{old}”？要“{word}”"),
    ),
    "text_color": (
        ("'{old}' is hard to read, {color} letters please", "same word '{old}', only in {color}"),
        ("“{old}”看不清，字用{color}吧", "还是“{old}”，但是{color}的字"),
    ),
    "text_write": (
        (
            "nothing is written on the {sign} yet, it should be '{word}'",
            "the {sign} is blank: fill in '{word}'",
        ),
        ("{sign}上还没有字，写个“{word}”吧", "{sign}空着，填上“{word}”"),
    ),
    "text_remove": (
        ("the {sign} should be blank, without '{old}'", "nobody needs the word '{old}', off with it"),
        ("“{old}”不需要了，{sign}空着就好", "{sign}上的“{old}”多余，擦了吧"),
    ),
    "nothing": (
        (
            "perfect, I wouldn't change a thing",
            "stop, that's exactly how I want it",
            "we're done here, thanks",
            "looks great, leave it",
        ),
        ("太完美了，就这样吧", "停，就要这个样子", "可以了，不用再改了", "挺好的，别动了"),
    ),
    "nothing/unsupported": (
        (
            "I'd like to see a walrus in a tuxedo over there",
            "who painted this?",
            "make the whole thing spin",
            "give {who} a cello",
            "somewhere in Venice would be romantic",
            "send it to my mom",
        ),
        (
            "旁边来一只穿礼服的海象",
            "这是谁画的？",
            "让整个画面转起来",
            "给{who}一把大提琴",
            "去威尼斯吧，浪漫一点",
            "发给我妈妈",
        ),
    ),
    "compound": (
        ("{first}. oh, and {second}", "I need two changes, {first} and {second}"),
        ("{first}。哦对了，{second}", "要改两处，{first}，{second}"),
    ),
    "character_scene": (
        ("meet the {noun} again, this time {place}, {doing}", "the {noun} is {place} now, {doing}"),
        ("又见到这个{noun}了，这次在{place}，{doing}", "{noun}现在在{place}，{doing}"),
    ),
    "character_view": (
        ("what does {who} look like from the {view}?", "walk around {who} and show the {view}"),
        ("{who}的{view}长什么样？", "绕到{who}的{view}看看"),
    ),
    "character_sheet": (
        ("I need {who} from all sides for an animator", "front, profile and back next to each other, please"),
        ("做动画要用，把{who}的各个角度都画出来", "正面、侧面、背面并排放在一起"),
    ),
    "style_reference": (
        ("I like how this is drawn, do {caption} like that", "keep the technique but show {caption}"),
        ("我喜欢这种画法，画{caption}", "画法别变，画的是{caption}"),
    ),
    "clothes_from": (
        (
            "{who} likes what they wear in image 2 and puts it on",
            "see the outfit in picture 2? that one for {who}",
        ),
        ("{who}喜欢图2里的那身衣服，穿上", "看到图2的衣服了吗？给{who}穿"),
    ),
    "style_from": (
        ("I like how image 2 is drawn, do image 1 like that", "picture 1, but painted the way picture 2 is"),
        ("我喜欢图2的画法，图1也这样画", "图1要有图2那种感觉"),
    ),
    "person_from": (
        (
            "invite {other} of picture 2 over to image 1, {spot}",
            "{other} from the second image joins the first, {spot}",
        ),
        ("请图2的{other}到图1来，站{spot}", "图2那个{other}也要在图1里，{spot}"),
    ),
    "background_from": (
        ("I like the place in image 2, show image 1 there", "{who} of image 1 has moved to where image 2 is"),
        ("我喜欢图2那个地方，图1也在那里吧", "图1的{who}搬到图2那里去了"),
    ),
    "object_from": (
        ("see {thing} in image 2? I want that {spot} in image 1", "image 1 lacks {thing} of image 2, {spot}"),
        ("看到图2的{thing}了吗？图1的{spot}也要", "图1的{spot}少了图2的{thing}"),
    ),
    "generate": (
        ("imagine this: {caption}", "can you draw {caption} for me?"),
        ("想象一下：{caption}", "能给我画{caption}吗？"),
    ),
    "generate/style": (
        ("I imagine {caption}, and all of it as {style}", "can I have {style} of {caption}?"),
        ("想象一下{caption}，用{style}", "能不能用{style}画出{caption}？"),
    ),
    "foreign_banner": (
        ("there should be a red banner up there with '{word}' on it", "celebrate: red banner, '{word}'"),
        ("上面拉一条红色横幅，写“{word}”", "庆祝一下，红横幅上写“{word}”"),
    ),
    "foreign_background": (
        ("what's behind is distracting, just plain {color} please", "the same on plain {color}"),
        ("后面太乱了，纯{color}就好", "放在纯{color}上"),
    ),
    "foreign_add": (
        (
            "the {corner} corner is empty, how about {thing}?",
            "could we also have {thing} in the {corner} corner?",
        ),
        ("{corner}太空了，来个{thing}", "{corner}再来个{thing}好不好？"),
    ),
}
