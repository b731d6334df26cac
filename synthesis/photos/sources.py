"""Permissively licensed pictures: files of packages with their role, licence and authors, as in docs/pictures.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Things among the pictures of fluent-emoji-3d: food, plants, animals, clothes, tools, vehicles; code points, in hex.
THINGS = """
231a-231b 2328 23f1 260e 2615 265f 2693 2696-2697 2699 26b1 26bd-26be 26cf 26d1 26d3 26ea 26f1-26f2 26f4-26f5 26f8 26fa
26fd 2702 2708 270f 2712 1f302 1f30b 1f321 1f32d-1f337 1f339 1f33b 1f33d-1f33f 1f341-1f342 1f344-1f361 1f364
1f366-1f37a 1f37c-1f382 1f384 1f388 1f38d 1f392-1f393 1f399-1f39b 1f39e-1f3a2 1f3a4-1f3a5 1f3a7-1f3a9 1f3ac 1f3ae
1f3b1-1f3b2 1f3b7-1f3bb 1f3bd-1f3c0 1f3c6 1f3c8 1f3cd-1f3d3 1f3da-1f3db 1f3e0-1f3e1 1f3ed-1f3ee 1f3f5 1f3f7-1f3fa
1f400-1f404 1f407-1f408 1f40a 1f40c-1f411 1f413 1f415-1f418 1f41a 1f41c-1f41e 1f422 1f42a-1f42b 1f43f 1f451-1f458
1f45a-1f460 1f462 1f484 1f489-1f48a 1f48d-1f48e 1f490 1f4a1 1f4a3 1f4b0 1f4ba-1f4bf 1f4c1 1f4cb-1f4ce 1f4d2-1f4d6 1f4da
1f4dc 1f4de-1f4e3 1f4e6 1f4ea 1f4ee-1f4ef 1f4f1 1f4f7 1f4f9-1f4fd 1f4ff 1f50b-1f50d 1f510-1f514 1f526-1f52a 1f52c-1f52e
1f56f-1f570 1f577 1f579 1f58a-1f58d 1f5a5 1f5a8 1f5b1-1f5b2 1f5c3-1f5c4 1f5d1-1f5d2 1f5dd-1f5de 1f5f3 1f680-1f686
1f68a-1f68c 1f68e 1f690-1f693 1f695 1f697 1f699-1f69d 1f69f 1f6a1-1f6a2 1f6a4-1f6a6 1f6a8 1f6aa 1f6b2 1f6bd 1f6bf 1f6c1
1f6cb 1f6cd-1f6cf 1f6d2 1f6d6 1f6dd-1f6e2 1f6e5 1f6e9 1f6f0 1f6f3-1f6f7 1f6f9-1f6fc 1f93f 1f941 1f943-1f944 1f94a
1f94c-1f96f 1f97b-1f97e 1f980 1f982-1f983 1f985-1f989 1f98b-1f98c 1f98e-1f98f 1f994-1f99b 1f99e-1f99f 1f9a1-1f9a3
1f9a8-1f9ae 1f9b4 1f9b7 1f9ba 1f9bc-1f9bd 1f9c0-1f9c9 1f9cb 1f9e0 1f9e3-1f9e6 1f9e8-1f9e9 1f9eb 1f9ed-1f9fd 1fa70-1fa71
1fa73-1fa74 1fa79-1fa7a 1fa7c 1fa80-1fa83 1fa87-1fa88 1fa90-1faa6 1faa8-1faa9 1faad-1faae 1fab0-1fabb 1fac0-1fac1
1facf-1fad6 1fad8-1fadb
"""

#: Folder of the pictures of supertuxkart-data.
STK = "usr/share/games/supertuxkart/data/"


class Source(NamedTuple):
    """Files of a package: patterns as for `glob`; ARCHIVE!MEMBER is a file inside a zip archive."""

    package: str
    role: str
    licence: str
    authors: str
    patterns: tuple[str, ...]


def emoji(ranges: str) -> Iterator[str]:
    """Yield the files of ranges of code points."""
    for part in ranges.split():
        first, *last = (int(code, 16) for code in part.split("-"))
        for code in range(first, (last[0] if last else first) + 1):
            yield from (f"package/assets/{code:x}.webp", f"package/assets/{code:x}-fe0f.webp")


def below(folder: str, names: str) -> tuple[str, ...]:
    """Return patterns below a folder."""
    return tuple(f"{folder}/{name}" for name in names.split())


#: All sources. Roles: texture (a surface, whole), scene (a large photograph, whole and cut into parts),
#: cutout (one object with alpha), render (a cutout drawn by a computer), head (a volume, cut into slices).
SOURCES = (
    Source("textures", "texture", "CC0-1.0", "ambientCG", below("ambientcg_terrain3d", "*.jpg")),
    Source("textures", "texture", "Apache-2.0", "Contributors to MaterialX", below("materialx", "*.jpg")),
    Source(
        "textures",
        "texture",
        "CC0-1.0 or TextureCan's terms",
        "Poly Haven (modified by SentientTurtle), TextureCan",
        below("polyhaven_texturecan", "*.jpg"),
    ),
    Source(
        "mypaint-data-extras",
        "texture",
        "CC0-1.0",
        "MrMamurk",
        below("usr/share/mypaint/backgrounds/mrmamurk", "*.png"),
    ),
    Source(
        "mypaint-data-extras",
        "texture",
        "CC0-1.0",
        "Ramón Miranda",
        below("usr/share/mypaint/backgrounds/ramon", "*.png"),
    ),
    Source(
        "krita-data",
        "texture",
        "CC0-1.0",
        "David Revoy, Ramón Miranda and others",
        below(
            "usr/share/krita/bundles/Krita_4_Default_Resources.bundle!patterns",
            "01_canvas.png 02_rough-canvas.png 02b_WoofTissue.png 05_paper-torchon.png 06_hard-grain.png"
            " 14_texture-rock.png 15_texture-rockB.png 16_texture-woody.png 17_texture-melt.png 18_texture-bark.png"
            " 19_texture-crackle.png 20_texture-vegetal.png 21_texture-chainmail.png 22_texture-reptile.png",
        ),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "public domain",
        "BurningWell",
        below(
            STK + "textures",
            "JapanwoodBridge.jpg Tizeta_grey1.png black_rockMountain.jpg blackrock.jpg rockMountain.jpg"
            " rockTograss.jpg",
        ),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "public domain",
        "BurningWell, Jean-Manuel Clémençon",
        below(
            STK + "textures",
            "ceramic.jpg hacienda_ground.jpg lantern.jpg oldWood.png rock_mountain.jpg rockwall.jpg sky.jpg"
            " woodBridge.jpg",
        ),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "public domain",
        "BurningWell, Varivar",
        below(STK + "textures", "cottage_wall[123].jpg wood_planks1.jpg"),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "public domain",
        "not named",
        below(STK + "tracks/endcutscene", "carpet.jpg metal.jpg"),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "CC0-1.0",
        "KartOym",
        (STK + "textures/bumpy_surface.png", STK + "tracks/sandtrack/road.jpg", STK + "tracks/sandtrack/sand.png"),
    ),
    Source("supertuxkart-data", "texture", "CC0-1.0", "Para", (STK + "library/stklib_old_house_a/door.jpg",)),
    Source(
        "supertuxkart-data",
        "texture",
        "CC0-1.0",
        "Ron Kapaun / 3TD Studios",
        (STK + "tracks/ancient_colosseum_labyrinth/3td_BrickOldRound_01.jpg",),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "CC0-1.0",
        "ambientCG, Sven Andreas Belting",
        (STK + "tracks/ancient_colosseum_labyrinth/Ice03_col.jpg", STK + "tracks/cave/Ground010_1K_Color.png"),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "CC0-1.0",
        "Yinan Chen, Sven Andreas Belting",
        (STK + "tracks/black_forest/forest_floor.jpg",),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "CC0-1.0",
        "bart (OpenGameArt, from Golgotha)",
        below(STK + "tracks/stk_enterprise", "bomber_metal1b.jpg cromwatertower2.jpg"),
    ),
    Source(
        "supertuxkart-data", "texture", "CC0-1.0", "Benau, BurningWell", (STK + "tracks/stk_enterprise/img_0572.png",)
    ),
    Source("supertuxkart-data", "texture", "CC-BY-3.0", "LFA", (STK + "tracks/ancient_colosseum_labyrinth/wall.png",)),
    Source(
        "supertuxkart-data",
        "texture",
        "CC-BY-3.0",
        "Keith333, Sven Andreas Belting",
        below(STK + "tracks/black_forest", "redTowel.jpg whiteTowel.jpg"),
    ),
    Source(
        "supertuxkart-data",
        "texture",
        "MIT",
        'Georges "TRaK" Grondin',
        below(
            STK + "tracks/stk_enterprise",
            "base1c.jpg grate1a.jpg pipez1a.jpg ribs1a.jpg tile3b.jpg wall1b.jpg wall3b.jpg",
        ),
    ),
    Source(
        "lomiri-wallpapers-16.04",
        "scene",
        "CC-BY-4.0",
        "Aitzol Berasategi",
        ("usr/share/backgrounds/*_by_Aitzol_Berasategi.jpg",),
    ),
    Source(
        "lomiri-wallpapers-16.04",
        "scene",
        "CC-BY-4.0",
        'Trevor "Freespace"',
        ("usr/share/backgrounds/Picture_*_by_freespace.jpg",),
    ),
    Source(
        "lomiri-wallpapers-16.04",
        "scene",
        "CC-BY-4.0",
        "Jakub Mede",
        ("usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg",),
    ),
    Source(
        "lomiri-wallpapers-16.04", "scene", "CC0-1.0", "Clemens Engelhardt", ("usr/share/backgrounds/seeding_by_*.jpg",)
    ),
    Source(
        "supertuxkart-data",
        "cutout",
        "public domain",
        "BurningWell, Jean-Manuel Clémençon",
        (STK + "textures/tree_1.png",),
    ),
    Source(
        "supertuxkart-data",
        "cutout",
        "CC0-1.0",
        'Sebastian "rubberduck" Platen, Sven Andreas Belting',
        (STK + "textures/gfx_leaf_b.png",),
    ),
    Source(
        "supertuxkart-data",
        "cutout",
        "CC-BY-3.0",
        "Blender Foundation, Sven Andreas Belting",
        (STK + "textures/stktex_autumnLeaf_b.png",),
    ),
    Source("supertuxkart-data", "cutout", "CC-BY-3.0", "OliverMH", (STK + "tracks/black_forest/bush.png",)),
    Source(
        "supertuxkart-data",
        "cutout",
        "CC-BY-3.0",
        "Keith333, Sven Andreas Belting",
        (STK + "tracks/black_forest/ekasia.png",),
    ),
    Source(
        "supertuxkart-data",
        "cutout",
        "CC-BY-3.0",
        'Christian "Duion" Femmer, Sven Andreas Belting',
        (STK + "tracks/black_forest/fir_branch.png",),
    ),
    Source("fluent-emoji-3d", "render", "MIT", "Microsoft (Fluent Emoji), LobeHub", tuple(emoji(THINGS))),
    Source(
        "openclipart-png",
        "render",
        "public domain",
        "Contributors to the Open Clip Art Library",
        below(
            "usr/share/openclipart/png",
            """
            animals/az-lizard_benji_park_01.png animals/bugs/butterfly_jonathan_dietr_01.png
            animals/fish/giraffe_cichlid_01.png animals/fish/seahorse.png
            animals/mammals/elefante01_architetto_fr_01.png animals/mammals/sheep-md-v0.1.png animals/punaisa_01.png
            buildings/homes/lowtec_house_christoph_b_01.png computer/hardware/monitor.png
            computer/microchip_v.2_havok_redh_01.png computer/mouse_scroll_fco._andrad_01.png
            containers/paperbag1_juliane_krug.png
            education/books/paperback_book_black_gal_.png education/books/stara_ksiega_-_old_book_01.png
            education/simple_calculator_01.png electronics/camcorder_jaime_sanchez1.png electronics/compact_disc.png
            food/beverages/zielony_kubek_herbaty_-_01.png food/breads_and_carbs/hash_browns.png
            food/desserts/pudim_valessio_soares_de_.png food/fruit/orange_slice_jonathan_di_01.png
            food/fruit/pasteque_01.png food/meats_and_eggs/hot_dog_juliane_krug_r.png
            food/vegetables/aglio_architetto_frances_01.png food/watermelon_james_kilfige_01.png
            office/blue_stamper_orbu_.png office/magnifying_glass_teudimu_01.png office/telephone/mobile_phone_01.png
            plants/acorn_jonathan_dietrich_01.png plants/flowers/flower_03.png
            plants/trees/bypasspruner_benji_park_01.png recreation/music/gramophone.png
            recreation/sports/8_ball_jarno_vasamaa.png recreation/sports/9_ball_jarno_vasamaa.png
            recreation/televisore_telecomando_a_01.png recreation/toys/basebalm_ganson.png
            recreation/toys/beachball_v0.1.png science/astronomy/jupiter_dan_gerhards_01.png
            science/astronomy/saturn_dan_gerhards_01.png science/astronomy/the_moon_dan_gerhards_01.png
            science/astronomy/venus_dan_gerhards_01.png tools/blue_vacuum_cleaner_jaim_01.png
            tools/brush_roller_costea_bogd_01.png tools/lock_-_open_afief_halumi_01.png
            tools/meatgrinder_benji_park_.png tools/orange_burner_01.png tools/viti_architetto_francesc_01.png
            transportation/vehicles/4wd.png
            """,
        ),
    ),
    Source(
        "mricron-data",
        "head",
        "BSD-3-Clause",
        "Chris Rorden (MRIcron); Colin 27: McConnell Brain Imaging Centre, MNI, McGill University",
        below("usr/share/mricron/templates", "ch2.nii.gz ch2better.nii.gz"),
    ),
    Source(
        "mricron-data",
        "head",
        "CC-BY",
        "Torsten Rohlfing and others (INIA19, PMID 23230398)",
        ("usr/share/mricron/templates/inia19-t1-brain.nii.gz",),
    ),
)
