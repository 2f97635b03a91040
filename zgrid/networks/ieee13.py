"""IEEE 13-bus feeder: 13 buses, 3.9 MW.

Balanced positive-sequence equivalent of the IEEE PES test feeder, with the
numbers of the public PowerGym case (MIT licence).
"""

from __future__ import annotations

from zgrid.networks.tables import Bus, BusSwitch, Line, LineType, NetworkTables, StaticLoad, Tap, Trafo

IEEE13 = NetworkTables(
    name="ieee13",
    source_bus="650",
    source_vm_pu=1.0,
    buses=(
        Bus("650", 24.9),
        Bus("646", 4.16),
        Bus("645", 4.16),
        Bus("632", 4.16),
        Bus("633", 4.16),
        Bus("634", 0.48),
        Bus("611", 4.16),
        Bus("684", 4.16),
        Bus("671", 4.16),
        Bus("692", 4.16),
        Bus("675", 4.16),
        Bus("652", 4.16),
        Bus("680", 4.16),
    ),
    line_types=(
        LineType("CF-601", 0.115554329383, 0.370813615154, 4.53499479705, 0.73),
        LineType("CF-602", 0.367893170551, 0.472387092712, 4.08740041491, 0.45),
        LineType("CF-603", 0.506748919643, 0.464972063151, 2.12827918291, 0.25),
        LineType("CF-604", 0.445794008226, 0.549576069177, 0.882295312044, 0.25),
        LineType("CF-605", 0.275350287653, 0.27909922718, 0.936054276359, 0.25),
        LineType("CF-606", 0.302856319096, 0.257951894271, 60.2044684045, 0.25),
        LineType("CF-607", 0.278063608526, 0.106130199634, 18.4321893475, 0.18),
    ),
    lines=(
        Line("Line 1", "632", "645", 0.1524, "CF-603"),
        Line("Line 2", "632", "633", 0.1524, "CF-602"),
        Line("Line 3", "645", "646", 0.0914, "CF-603"),
        Line("Line 4", "684", "652", 0.2438, "CF-607"),
        Line("Line 5", "632", "671", 0.6096, "CF-601"),
        Line("Line 6", "671", "684", 0.0914, "CF-604"),
        Line("Line 7", "671", "680", 0.3048, "CF-601"),
        Line("Line 8", "684", "611", 0.0914, "CF-605"),
        Line("Line 9", "692", "675", 0.1524, "CF-606"),
    ),
    trafos=(
        Trafo("Substation", "650", "632", 5.0, 24.9, 4.16, 1, 8, Tap(0, -2, 2, 2.5, 0)),
        Trafo("Transformer 1", "633", "634", 0.5, 4.16, 0.48, 1.1, 2, None),
    ),
    loads=(
        StaticLoad("634", 0.4, 0.29),
        StaticLoad("645", 0.17, 0.125),
        StaticLoad("646", 0.23, 0.132),
        StaticLoad("652", 0.128, 0.086),
        StaticLoad("671", 1.115, 0.66),
        StaticLoad("675", 0.843, 0.462),
        StaticLoad("692", 0.843, 0.462),
        StaticLoad("611", 0.17, 0.08),
    ),
    switches=(BusSwitch("Switch 671-692", "671", "692", True),),
)
