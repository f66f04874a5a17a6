"""The word lists of the corpus. Data only: no randomness and no sentences."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in " ".join(text.split()).split(","))


def _pairs(text: str) -> dict[str, str]:
    return {left: right for left, _, right in (pair.partition("/") for pair in text.split())}


HEROES = _words(
    """
    fox owl bear rabbit mouse hedgehog badger otter squirrel deer wolf cat dog duck goose swan crow robin sparrow
    frog toad turtle snail beetle bee ant spider butterfly moth horse donkey goat sheep lamb cow pig hen rooster
    lion tiger elephant monkey giraffe zebra penguin whale dolphin seal crab fish dragon giant robot wizard knight
    princess king queen farmer baker sailor fisherman painter miller shepherd gardener tailor boy girl child
    """
)
THINGS = _words(
    """
    lantern key map bell book mirror kite boat ladder basket button candle clock coin compass crown cup drum feather
    flute hat hammer jar kettle letter lamp mask needle pearl pebble pie pillow ring rope scarf seed shell ship
    spoon star stone sword teapot telescope teacup thimble umbrella violin wagon wheel whistle window blanket bottle
    box bracelet broom cake carpet chair cloud doll egg flower glass ghost glove moon nest rainbow ribbon shawl shoe
    sled spool trumpet treasure
    """
)

# Name and pronouns: subject, object, possessive.
NAMES = (
    *(
        (name, "she", "her", "her")
        for name in _words("Ada Bella Clara Daisy Elsie Fern Greta Hazel Ivy Juno Lily Mina Nora Olive Ruby Tess")
    ),
    *(
        (name, "he", "him", "his")
        for name in _words("Alfie Bram Casper Dan Emil Finn Gus Hugo Jasper Leo Milo Ned Oscar Pip Sam Tom")
    ),
)

ADJECTIVES = _words(
    """
    small young old brave shy clever kind lonely curious quiet hungry lazy proud gentle cheerful sleepy stubborn
    careful
    """
)
THING_ADJECTIVES = _words(
    """
    golden silver old tiny shiny red blue green broken wooden dusty strange beautiful heavy magic little
    """
)
PLACES = _phrases(
    """
    in a deep forest, by a wide river, on a green hill, at the edge of a village, near the sea, in an old mill,
    under a tall oak, high in the mountains, beside a quiet lake, in a house of stone, on a small island, behind the
    baker's shop, in a snowy valley, at the end of a long road, in a garden full of roses
    """
)
SPOTS = _phrases(
    """
    under a stone, in the tall grass, behind the door, at the bottom of the well, beside the path, in a hollow tree,
    on the beach, under the bridge, on top of the hill, in the snow, next to the river, in an empty nest
    """
)
TIMES = _phrases(
    """
    One morning, One cold evening, One summer day, One rainy afternoon, One night, Early one spring morning, On the
    first day of winter, One windy day, One quiet Sunday, When the leaves were falling
    """
)
WONDERS = _phrases(
    """
    shone like the moon, hummed a quiet song, smelled of the sea, was warm to the touch, was as light as a feather,
    glowed in the dark, was covered with tiny stars, felt older than the hills, seemed to whisper, was just the
    right size
    """
)
MORALS = _phrases(
    """
    a kind heart opens every door, a small light is enough in the dark, it is better to share than to keep, even the
    smallest friend can help, asking for help is brave, home is where your friends are, the best treasure is a good
    friend, it pays to be patient, every storm comes to an end, a promise must be kept
    """
)

COLOURS = {
    "red": _phrases("a strawberry, a tomato, a fire engine, a ruby, a cherry, blood, a ripe apple, a poppy"),
    "blue": _phrases("the sky, the sea, a sapphire, a bluebell, a blueberry"),
    "green": _phrases("grass, a leaf, a frog, a cucumber, an emerald, a pea, spinach"),
    "yellow": _phrases("the sun, a lemon, a banana, butter, a daffodil, a canary"),
    "white": _phrases("snow, milk, a swan, salt, a daisy, paper, a polar bear"),
    "black": _phrases("coal, the night, a raven, ink, a panther"),
    "orange": _phrases("a carrot, a pumpkin, an orange, a tiger"),
    "brown": _phrases("chocolate, wood, coffee, a chestnut, a bear"),
    "grey": _phrases("an elephant, a rain cloud, a stone, ash, a mouse"),
    "pink": _phrases("a flamingo, a pig, a rose petal"),
    "purple": _phrases("a plum, lavender, an aubergine, a violet"),
    "gold": _phrases("a crown, a wedding ring"),
}

OPPOSITES = _words(
    """
    hot/cold big/small day/night up/down fast/slow happy/sad wet/dry old/new open/closed full/empty hard/soft
    light/dark high/low near/far loud/quiet left/right early/late long/short rich/poor strong/weak
    """
)
SOUNDS = _pairs(
    """
    cow/moo dog/woof cat/meow duck/quack sheep/baa pig/oink lion/roar bee/buzz owl/hoot horse/neigh frog/croak
    mouse/squeak rooster/cock-a-doodle-doo snake/hiss
    """
)
YOUNG = _pairs(
    """
    dog/puppy cat/kitten cow/calf sheep/lamb horse/foal duck/duckling bear/cub goat/kid hen/chick swan/cygnet
    frog/tadpole deer/fawn goose/gosling
    """
)
CAPITALS = _pairs(
    """
    France/Paris Italy/Rome Spain/Madrid England/London Germany/Berlin Greece/Athens Japan/Tokyo Egypt/Cairo
    Norway/Oslo Portugal/Lisbon Austria/Vienna Ireland/Dublin Poland/Warsaw Canada/Ottawa Sweden/Stockholm
    """
)
LEGS = {
    animal: int(legs)
    for animal, legs in _pairs(
        "spider/8 dog/4 cat/4 bird/2 bee/6 ant/6 horse/4 fish/0 snake/0 cow/4 crab/10 snail/0"
    ).items()
}
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NUMBERS = _words("one two three four five six seven eight nine ten")

# Question, then answers of equal standing.
FACTS = (
    ("What do bees make?", "Bees make honey.", "Honey. Bees make it from the nectar of flowers."),
    ("Where do fish live?", "Fish live in water.", "In the sea, in rivers and in lakes."),
    ("What do cows eat?", "Cows eat grass.", "Mostly grass and hay."),
    ("What do plants need to grow?", "Plants need light, water and air.", "Water, light and good soil."),
    ("How many days are in a week?", "There are seven days in a week.", "A week has seven days."),
    ("How many months are in a year?", "There are twelve months in a year.", "A year has twelve months."),
    ("How many hours are in a day?", "A day has twenty-four hours.", "There are twenty-four hours in a day."),
    ("How many minutes are in an hour?", "An hour has sixty minutes.", "There are sixty minutes in an hour."),
    ("What is ice?", "Ice is frozen water.", "Ice is water that has become so cold that it is hard."),
    ("What is snow?", "Snow is made of tiny crystals of ice.", "Snow is frozen water that falls from clouds."),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue."),
    ("What is the largest animal?", "The blue whale is the largest animal.", "The largest animal is the blue whale."),
    ("What is the tallest animal?", "The giraffe is the tallest animal.", "The tallest animal is the giraffe."),
    ("What does the moon do?", "The moon goes around the earth.", "It goes around the earth once a month."),
    ("What is the sun?", "The sun is a star.", "The sun is our nearest star, and it gives us light and warmth."),
    ("What is a lantern?", "A lantern is a lamp that you can carry.", "A lamp with a handle, to carry in the dark."),
    ("What is a compass?", "A compass is a tool that shows where north is.", "It is a needle that points north."),
    ("When do owls sleep?", "Owls sleep during the day.", "Owls sleep by day and hunt by night."),
    ("Where do penguins live?", "Penguins live in the cold south.", "In the south, where there is ice and sea."),
    ("What do you call frozen rain?", "Frozen rain is called hail.", "Hail."),
    ("What makes bread rise?", "Yeast makes bread rise.", "Yeast does. It fills the dough with tiny bubbles."),
    ("What is honey made from?", "Honey is made from the nectar of flowers.", "Bees make it from nectar."),
    ("What comes after winter?", "Spring comes after winter.", "After winter comes spring."),
    ("What comes after summer?", "Autumn comes after summer.", "After summer comes autumn."),
)
