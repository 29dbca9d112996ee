"""Templates of instructions, per kind of edit, in English and Chinese.

A variant names a kind and, where one kind says different things, what happens: "glasses/on". Its slots hold
(English, Chinese) pairs, so that one set fills both languages.
"""

from typing import NamedTuple


class Templates(NamedTuple):
    """Ways to say one thing."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]


def _t(english: list[str], chinese: list[str]) -> Templates:
    return Templates(tuple(english), tuple(chinese))


TEMPLATES = {
    "hair_color": _t(
        [
            "change the hair color to {color}",
            "make {who}'s hair {color}",
            "dye the hair {color}",
            "{who} should have {color} hair",
        ],
        ["把头发颜色改成{color}", "把{who}的头发染成{color}", "头发换成{color}"],
    ),
    "hair_style": _t(
        ["give {who} {hair}", "change the hairstyle to {hair}", "change {who}'s hairstyle: {hair}"],
        ["把发型换成{hair}", "给{who}换成{hair}", "让{who}留{hair}"],
    ),
    "hair_style/bald": _t(["make {who} bald", "shave off all the hair"], ["把{who}变成光头", "剃光头发"]),
    "horns/on": _t(
        ["give {who} {horns}", "add {horns} to {who}"], ["给{who}加上{horns}", "让{who}长出{horns}"]
    ),
    "horns/off": _t(["remove {horns} from the head"], ["去掉头上的{horns}"]),
    "glasses/on": _t(
        ["add {glasses}", "put {glasses} on {who}", "make {who} wear {glasses}"],
        ["给{who}戴上{glasses}", "加上{glasses}"],
    ),
    "glasses/off": _t(
        ["remove the {glasses}", "take off {who}'s {glasses}", "{who} without {glasses}"],
        ["去掉{glasses}", "摘掉{who}的{glasses}"],
    ),
    "glasses/swap": _t(
        ["replace the {old} with {glasses}", "swap the {old} for {glasses}"], ["把{old}换成{glasses}"]
    ),
    "hat/on": _t(["put {hat} on {who}", "add {hat}", "give {who} {hat}"], ["给{who}戴上{hat}", "加上{hat}"]),
    "hat/off": _t(["remove the {old}", "take off the {old}"], ["去掉{old}", "摘掉{who}的{old}"]),
    "hat/swap": _t(["replace the {old} with {hat}", "swap the {old} for {hat}"], ["把{old}换成{hat}"]),
    "expression": _t(
        ["make {who} {express}", "change the expression: {who} should {express}"],
        ["让{who}{express}", "改变表情，让{who}{express}"],
    ),
    "cloth_color": _t(
        ["change the {cloth} to {color}", "make the {cloth} {color}", "{who} should wear {colored_cloth}"],
        ["把{cloth}改成{color}", "把{who}的{cloth}换成{color}"],
    ),
    "cloth_color/monster": _t(
        ["make the monster {color}", "change the monster's color to {color}"],
        ["把小怪物变成{color}", "把小怪物的颜色改成{color}"],
    ),
    "clothes": _t(
        ["change the outfit to {clothes}", "dress {who} in {clothes}", "{who} should wear {clothes}"],
        ["把衣服换成{clothes}", "让{who}穿上{clothes}"],
    ),
    "beard/on": _t(["give {who} {beard}", "add {beard}"], ["给{who}加上{beard}", "让{who}留{beard}"]),
    "beard/off": _t(["shave {who}", "remove the facial hair"], ["去掉胡子", "把{who}的胡子刮掉"]),
    "pose": _t(["make {who} {pose}", "{who} should {pose}"], ["让{who}{pose}"]),
    "hold/give": _t(
        ["make {who} hold {thing}", "put {thing} in {who}'s hand", "give {who} {thing} to hold"],
        ["让{who}拿着{thing}", "在{who}手里放上{thing}"],
    ),
    "hold/take": _t(
        ["remove {old} from the hand", "take away {old}"], ["拿走手里的{old}", "去掉手中的{old}"]
    ),
    "hold/swap": _t(
        ["replace {old} in the hand with {thing}", "{who} should hold {thing} instead of {old}"],
        ["把手里的{old}换成{thing}"],
    ),
    "character_remove": _t(
        ["remove {who}", "erase {who} from the picture"], ["去掉{who}", "把{who}从图中删除"]
    ),
    "object_remove": _t(
        ["remove {thing}", "delete {thing} {side}", "erase {thing}"],
        ["去掉{side}的{thing}", "删除{thing}", "移除{thing}"],
    ),
    "object_add": _t(
        ["add {thing} {spot}", "put {thing} {spot}", "place {thing} {spot}"],
        ["在{spot}添加{thing}", "在{spot}放上{thing}"],
    ),
    "object_replace": _t(
        ["replace {old} with {thing}", "turn {old} into {thing}", "change {old} to {thing}"],
        ["把{old}换成{thing}", "将{old}替换为{thing}", "把{old}变成{thing}"],
    ),
    "object_box/replace": _t(
        [
            "replace the object in the red box with {thing}",
            "change what is inside the red box to {thing}",
            "turn the thing in the red box into {thing}",
        ],
        ["把红框里的物体换成{thing}", "将红色方框中的东西替换为{thing}"],
    ),
    "object_box/remove": _t(
        ["remove the object in the red box", "delete what is inside the red box"],
        ["去掉红框里的物体", "删除红色方框中的东西"],
    ),
    "object_color": _t(
        ["make {old} {color}", "change the color of {old} to {color}", "paint {old} {color}"],
        ["把{old}变成{color}", "把{old}的颜色改成{color}"],
    ),
    "object_move": _t(
        ["move {thing} to the {direction}", "put {thing} on the {direction} side instead"],
        ["把{thing}移到{direction}", "将{thing}挪到{direction}"],
    ),
    "object_size": _t(["make {thing} {size}"], ["把{thing}{size}"]),
    "background": _t(
        [
            "change the background to {place}",
            "replace the background with {place}",
            "put {who} in front of {place}",
        ],
        ["把背景换成{place}", "将背景替换为{place}"],
    ),
    "time/day": _t(["make it daytime", "change the scene to a bright day"], ["把场景改成白天", "变成白天"]),
    "time/night": _t(
        ["make it night", "change the scene to night", "turn the scene into night time"],
        ["把场景改成夜晚", "变成晚上"],
    ),
    "time/sunset": _t(["make it sunset", "change the light to a warm sunset"], ["改成日落时分", "变成黄昏"]),
    "season": _t(
        ["make it {season}", "change the season to {season}"], ["把季节改成{season}", "变成{season}"]
    ),
    "weather/rain": _t(["make it rain", "add rain"], ["让它下雨", "加上雨"]),
    "weather/snowfall": _t(["make it snow", "add falling snow"], ["让它下雪", "加上飘雪"]),
    "weather/clear_rain": _t(["stop the rain", "clear up the weather"], ["让天气放晴", "让雨停下来"]),
    "weather/clear_snowfall": _t(["stop the snow", "clear up the weather"], ["让天气放晴", "让雪停下来"]),
    "style": _t(
        [
            "turn this into {style}",
            "change the style to {style}",
            "restyle the picture as {style}",
            "make it look like {style}",
        ],
        ["变成{style}", "把整张图改成{style}", "转换为{style}"],
    ),
    "art/flat": _t(
        ["color the line icons", "fill the black and white drawings with flat colors"],
        ["给线稿图标上色", "把黑白图形涂上颜色"],
    ),
    "art/line": _t(
        [
            "redraw the objects as black and white line icons",
            "turn only the objects into black and white icons, keep the background",
        ],
        ["把物体改画成黑白线条图标", "只把物体变成黑白图标，背景不变"],
    ),
    "text": _t(
        [
            "change '{old}' to '{word}'",
            "replace the word '{old}' with '{word}'",
            "make the {sign} say '{word}'",
            "replace '{old}' by '{word}', keep the font",
        ],
        ["把“{old}”改成“{word}”", "将文字“{old}”替换为“{word}”", "让{sign}写上“{word}”"],
    ),
    "text_color": _t(
        ["make the text {color}", "change the color of the word '{old}' to {color}"],
        ["把文字改成{color}", "把“{old}”的颜色改成{color}"],
    ),
    "text_write": _t(
        ["write '{word}' on the {sign}", "add the word '{word}' to the {sign}"],
        ["在{sign}上写“{word}”", "给{sign}加上文字“{word}”"],
    ),
    "text_remove": _t(
        ["remove the word '{old}'", "erase the text from the {sign}"], ["去掉文字“{old}”", "擦掉{sign}上的字"]
    ),
    "nothing": _t(
        ["leave the picture as it is", "do not change anything", "keep everything the same"],
        ["保持图片不变", "什么都不要改", "原样保留这张图"],
    ),
    "nothing/unsupported": _t(
        [
            "add a kangaroo next to {who}",
            "make {who} sit down",
            "change the picture to an oil painting of a horse race",
            "put the scene in a hospital",
            "zoom out to show the whole city",
            "what do you see?",
        ],
        [
            *("在{who}旁边加一只袋鼠", "让{who}坐下来", "改成赛马的油画"),
            *("把场景放到医院里", "拉远镜头看整座城市", "你看到了什么？"),
        ],
    ),
    "compound": _t(
        ["{first} and {second}", "{first}, and {second}", "{first}, then {second}"],
        ["{first}，并{second}", "{first}，然后{second}"],
    ),
    "character_scene": _t(
        [
            "the same {noun} {place}, {doing}",
            "show this {noun} {place}, {doing}",
            "draw this exact {noun} {place}, {doing}",
        ],
        ["同一个{noun}在{place}，{doing}", "让这个{noun}出现在{place}，{doing}"],
    ),
    "character_view": _t(
        ["show {who} from the {view}", "turn {who} so that we see the {view}"],
        ["展示{who}的{view}", "让{who}转身露出{view}"],
    ),
    "character_sheet": _t(
        [
            "create a character sheet of {who} with front, side and back views",
            "three-view turnaround of the same character",
        ],
        ["生成这个角色的三视图：正面、侧面、背面", "画出{who}的正面、侧面和背面"],
    ),
    "style_reference": _t(
        [
            "using this style, {caption}",
            "{caption}, in the same style as this image",
            "in the style of this picture: {caption}",
        ],
        ["用这张图的风格画：{caption}", "以相同的风格画：{caption}"],
    ),
    "clothes_from": _t(
        [
            "let {who} wear the clothes of image 2",
            "dress {who} of image 1 in the outfit from image 2",
            "put the clothes from image 2 on {who} in image 1",
            "{who} in image 1 should wear what is worn in image 2",
        ],
        ["让{who}穿上图2中的衣服", "把图2的衣服穿到图1的{who}身上", "给图1里的{who}换上图2的服装"],
    ),
    "style_from": _t(
        [
            "paint image 1 in the style of image 2",
            "give image 1 the look of image 2",
            "apply the style of image 2 to image 1",
            "redraw image 1 so that it matches the style of image 2",
        ],
        ["用图2的风格画图1", "把图1变成图2的画风", "将图2的风格用到图1上"],
    ),
    "person_from": _t(
        [
            "put {other} of image 2 into image 1, {spot}",
            "add {other} from image 2 {spot} of image 1",
            "{other} from image 2 should be {spot} in image 1",
        ],
        [
            "把图2里的{other}放到图1的{spot}",
            "在图1的{spot}加上图2中的{other}",
            "让图2的{other}出现在图1的{spot}",
        ],
    ),
    "background_from": _t(
        [
            "give image 1 the background of image 2",
            "replace the background of image 1 with the one of image 2",
            "put {who} of image 1 in front of the background of image 2",
        ],
        ["把图1的背景换成图2的背景", "让图1的{who}出现在图2的背景中", "图1用图2的背景"],
    ),
    "object_from": _t(
        [
            "put {thing} of image 2 into image 1, {spot}",
            "add {thing} from image 2 {spot}",
            "copy {thing} of image 2 to image 1, {spot}",
        ],
        ["把图2里的{thing}放到图1的{spot}", "在图1的{spot}加上图2中的{thing}"],
    ),
    "generate": _t(["{caption}", "draw {caption}"], ["{caption}", "画{caption}"]),
    "generate/style": _t(
        ["{caption}, as {style}", "{style}: {caption}"], ["{caption}，{style}", "{style}：{caption}"]
    ),
    "foreign_banner": _t(
        ["add a red banner that says '{word}'", "put a red banner with the word '{word}' at the top"],
        ["加一条写着“{word}”的红色横幅", "在顶部放一条红色横幅，写上“{word}”"],
    ),
    "foreign_background": _t(
        ["make the background plain {color}", "replace the background with plain {color}"],
        ["把背景改成纯{color}", "将背景替换为纯{color}"],
    ),
    "foreign_add": _t(
        ["add {thing} in the {corner} corner", "put {thing} in the {corner} corner"],
        ["在{corner}添加{thing}", "在{corner}放上{thing}"],
    ),
}
